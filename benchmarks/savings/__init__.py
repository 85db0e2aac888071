"""Benchmarks of savings: estimators, published results, and thresholds on traces."""
