"""Weights in few bits as they are stored: codes, tables and scales, packed bit by bit. Knows tensors, not networks."""
