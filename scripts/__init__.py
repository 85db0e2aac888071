"""Chores: set-up, locks, generated documentation."""
