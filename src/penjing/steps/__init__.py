"""Steps: the stages of a recipe, each from a State to a new State."""
