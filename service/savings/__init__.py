"""What was saved, and how that is known: a randomised holdout, paired runs, and their sums."""
