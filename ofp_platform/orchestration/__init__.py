"""Dagster: assets, checks, sensors, jobs. Thin, no logic of its own."""
