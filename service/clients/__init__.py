"""Clients of other servers: a judge, and a server that continues truncated reasoning."""
