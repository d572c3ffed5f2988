"""Commands for events of one's own: a proposal from a file, its import, its labels."""
