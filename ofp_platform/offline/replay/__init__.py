"""The log folded again: known events, by key and by knowledge."""
