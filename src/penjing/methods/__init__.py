"""Whole methods, as their papers describe them: a name that stands for several steps.

A method is called without arguments and returns steps, as a recipe writes them. It may stand in a recipe wherever a
step may, and ends before the network is exported.
"""
