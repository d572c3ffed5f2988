"""Commands of the online plane."""
