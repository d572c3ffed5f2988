"""`ofp up`: the whole plane on one machine, until it is told to stop."""
