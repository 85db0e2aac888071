"""Who may ask this server for what, and how much of it.

`keys` are the API keys a server knows, from flags and from a file that may change. `limits` bounds
what one key may ask at once and in a minute, `bodies` what one request may hold. `guard` is the
middleware that applies all of it before anything is parsed; `protocol` answers what is no HTTP.
`settings` are the operator's flags.
"""
