"""Trackers: what a run finds out, told to TensorBoard or MLflow while it is found out."""
