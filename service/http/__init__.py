"""HTTP: routes, health, and what is read from requests and added to responses."""
