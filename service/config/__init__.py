"""The server's settings: flags, environment variables and files."""
