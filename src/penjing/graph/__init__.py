"""What the network is: traced layers, coupled channels, and the one place that edits tensors."""
