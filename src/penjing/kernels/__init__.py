"""Layers computed from their packed form, in C compiled on this machine. Knows tensors, not networks."""
