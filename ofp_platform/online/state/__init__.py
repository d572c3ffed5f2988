"""The state of a projection: chunks, spans, buckets, identities, and the row that names their basis."""
