"""The page at ``/``: it shows what exits do, in a browser, over the server's own API."""
