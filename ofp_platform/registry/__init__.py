"""Feature packs: models, validation, digest, diff, and what they compile to."""
