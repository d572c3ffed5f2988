"""Parity: served answers compared with a rebuild from the log."""
