"""Load: admission, drain, running requests, and the share of the engine that probes may use."""
