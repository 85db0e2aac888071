"""An OpenAI-compatible server: vLLM's own, with early exit and saved-token accounting."""
