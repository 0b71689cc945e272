"""Allocators: how many units each site keeps. They see scores and costs, never a tensor of the model."""
