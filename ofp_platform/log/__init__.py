"""The EventLog port and its implementations."""
