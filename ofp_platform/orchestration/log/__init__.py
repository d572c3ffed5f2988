"""The log as assets."""
