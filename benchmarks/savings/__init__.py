"""Estimates of saved tokens, the published results, and thresholds on traces."""
