"""Labels: asserted, resolved as of a time, held against the rows."""
