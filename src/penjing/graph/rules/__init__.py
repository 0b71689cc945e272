"""One small rule for each ATen operator: how labels pass through it."""
