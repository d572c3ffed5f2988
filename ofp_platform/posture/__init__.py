"""Posture: the mode in force of a run, kept by signals, held by operators, proved by challenges."""
