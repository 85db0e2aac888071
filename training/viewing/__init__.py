"""Looking into runs: a page of one run, and the comparison of two."""
