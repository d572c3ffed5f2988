"""What was served against what the log gives."""
