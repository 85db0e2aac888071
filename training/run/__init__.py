"""Infrastructure of a run: checkpoints, seals, locks, processes, adapters, output files."""
