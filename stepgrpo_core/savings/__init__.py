"""Saved tokens: predictions, intervals, holdout assignment, and estimators over many requests."""
