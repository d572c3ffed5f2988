"""Contracts of the loop around the plane."""
