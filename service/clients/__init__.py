"""Clients of other servers: a judge, or a server that continues truncated reasoning."""
