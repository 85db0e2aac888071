"""API keys and limits of the guarded server."""

FILED = "# of the tests\n\nfiled-secret-1\nalice: filed-secret-2\n"
"""The content of its file of keys."""
SEATS, PER_MINUTE = 4, 600
"""Requests of one key at once, and in a minute."""
