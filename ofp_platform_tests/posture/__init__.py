"""Posture: its changes, who keeps it, and who proves it."""
