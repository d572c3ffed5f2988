"""Folding the log into state, one commit after the other."""
