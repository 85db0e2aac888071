"""Saved tokens: predictions, intervals, the holdout, and estimators for a fleet."""
