"""Networks against which a structural pruner is proved; they know nothing but torch."""
