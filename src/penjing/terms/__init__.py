"""What training may add to the loss; each module registers one family of Terms."""
