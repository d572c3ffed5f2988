"""`ofp demo`: from nothing to a served, rebuilt and proven feature vector."""
