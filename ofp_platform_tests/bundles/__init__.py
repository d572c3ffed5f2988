"""Bundles: their files, their steps, what is in force."""
