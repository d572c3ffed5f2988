"""Records and batches that are almost right, or hardly anything, against the HTTP door."""
