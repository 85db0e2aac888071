"""What became of single requests: timelines, the request log, and its explanation."""
