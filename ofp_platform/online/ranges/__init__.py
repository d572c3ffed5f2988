"""Whole ranges and whole projections: applied, verified, compared, reported, materialised."""
