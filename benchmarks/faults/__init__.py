"""Tests of the server under churn, faults and hostile neighbors."""
