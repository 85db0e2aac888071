"""The offline trainer, and the demo world that makes everything runnable on a CPU."""
