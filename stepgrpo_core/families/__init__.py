"""Model families: how each writes its thinking, and what its template says."""
