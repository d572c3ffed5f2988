"""The offline plane as assets, with their jobs, sensors and schedules."""
