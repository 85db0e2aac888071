"""Shipped presets, and how YAML files become one mapping (`training.configs.layers`)."""
