"""The configuration of a run: YAML files, overrides, checks, and the presets."""
