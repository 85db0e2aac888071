"""Benchmarks of the server's cost and speed, compared with stock vLLM."""
