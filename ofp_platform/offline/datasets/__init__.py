"""Rows, features, files, publication."""
