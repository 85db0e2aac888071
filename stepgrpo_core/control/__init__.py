"""The exit controller: boundaries of steps, policies, probes, and what to do next."""
