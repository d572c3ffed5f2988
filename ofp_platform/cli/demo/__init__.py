"""`ofp demo`: from nothing to proven feature vectors, a training set and models."""
