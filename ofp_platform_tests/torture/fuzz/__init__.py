"""Fuzz: requests that are almost right, or hardly HTTP."""
