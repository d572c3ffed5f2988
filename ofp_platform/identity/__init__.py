"""Identity: links between entities, folded from the context stream, and who belongs together at a time."""
