"""The typed client of the HTTP service."""
