"""Records of requests, and where they are shown: metrics, log lines, traces, the response."""
