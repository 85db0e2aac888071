"""Streams of the engine's outputs, their text, and where stop strings end it."""
