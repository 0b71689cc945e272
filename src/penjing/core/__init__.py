"""Values and contracts: what the rest of the house shares."""
