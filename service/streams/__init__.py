"""Streams of the engine's outputs, the text of their tokens, and stop strings."""
