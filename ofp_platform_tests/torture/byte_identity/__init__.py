"""Bytes: the same everywhere, and none changed unnoticed."""
