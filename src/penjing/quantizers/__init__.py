"""How weights, and what layers read, are written in few bits. Knows weight tensors and torch, not networks."""
