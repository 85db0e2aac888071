"""Rollouts: completions that stop at exits, from one engine, a server, or stored traces."""
