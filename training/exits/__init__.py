"""Calibration of exits: traces of a model, and the threshold whose risk is bounded."""
