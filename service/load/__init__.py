"""How much runs at once: admission, drain, and the share that probes may take."""
