"""Training, evaluation and batch norm recalibration of any classifier, with any Terms added to the loss."""
