"""Build requests: intents, and their resolution into plans."""
