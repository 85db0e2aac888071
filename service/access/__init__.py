"""Access control: API keys, limits per key, and limits on request bodies.

`keys` holds the API keys from flags and from a file that is reloaded when it changes. `limits` caps
the concurrency and the request rate of a key, `bodies` the size and nesting of a request body.
`middleware` applies all of them before the application parses anything. `protocol` answers bytes
that are not valid HTTP.
"""
