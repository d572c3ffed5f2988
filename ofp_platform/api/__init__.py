"""The HTTP service and its typed client."""
