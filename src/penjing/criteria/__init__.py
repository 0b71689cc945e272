"""Criteria: scores for the units of a site, higher meaning keep."""
