"""Benchmarks of the core alone: segmentation and comparison of answers."""
