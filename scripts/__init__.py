"""Maintenance scripts: setup, lock files, generated documentation."""
