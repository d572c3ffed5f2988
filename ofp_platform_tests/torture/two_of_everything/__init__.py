"""Races: two of each writer at once."""
