"""Fine-tuning on sampled completions, with rejection sampling."""
