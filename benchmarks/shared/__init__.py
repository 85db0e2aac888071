"""Measuring code that several benchmarks share."""
