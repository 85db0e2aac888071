"""The state file: sums that several processes share and that survive a restart."""
