"""Processes: the server, its engine, and how both start and end."""
