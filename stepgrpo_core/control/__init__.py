"""The exit controller: step boundaries, policies, probes, and the commands that follow."""
