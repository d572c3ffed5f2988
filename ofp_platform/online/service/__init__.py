"""The plane as a long-running service: the projection followed, its health watched, the served logged."""
