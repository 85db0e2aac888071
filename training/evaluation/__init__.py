"""Evaluation: models and exit policies on benchmarks, compared on the same questions and seeds."""
