"""Measurement of savings: a randomized holdout, paired continuations, and their sums."""
