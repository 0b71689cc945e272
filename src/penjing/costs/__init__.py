"""Numbers with a unit about a draft of the model."""
