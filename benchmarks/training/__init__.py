"""Benchmarks of the trainer's rollouts and rewards, compared with the published code."""
