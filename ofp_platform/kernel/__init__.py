"""The windows: the one place where an aggregation is computed."""
