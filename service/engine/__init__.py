"""vLLM's engine client with exits: one request from its parameters to its last output."""
