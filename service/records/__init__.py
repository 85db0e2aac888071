"""What is recorded of a request and where it shows: metrics, log lines, traces, the response."""
