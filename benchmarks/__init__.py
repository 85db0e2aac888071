"""Benchmarks that compare with a peer in the same run (`make bench`)."""
