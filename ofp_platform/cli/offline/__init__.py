"""Commands of the offline plane."""
