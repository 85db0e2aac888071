"""A small world and model: overthinking, and its removal, on two CPU cores."""
