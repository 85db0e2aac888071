"""Processes: how the server and its engine start and end."""
