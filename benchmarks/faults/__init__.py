"""The server under churn, faults and hostile neighbors."""
