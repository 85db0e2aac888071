"""A run on disk and on the machine: checkpoints, seals, locks, processes, adapters."""
