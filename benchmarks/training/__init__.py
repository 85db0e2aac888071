"""Rollouts and rewards of the trainer, beside the published ones."""
