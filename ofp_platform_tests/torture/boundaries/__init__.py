"""Boundaries: questions on the edges of windows and on ties."""
