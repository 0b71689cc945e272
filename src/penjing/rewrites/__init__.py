"""The kinds of change: what may be chosen, and how the choice is carried out."""
