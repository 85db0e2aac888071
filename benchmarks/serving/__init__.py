"""The server's cost and speed, beside stock vLLM."""
