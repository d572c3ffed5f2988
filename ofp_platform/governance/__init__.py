"""Sums over the loop: what came in, what was decided, done, proven and learned, to the unit."""
