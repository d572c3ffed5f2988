"""How a running plane is followed: log lines, and traces from the door to the audit log. Nothing stored depends on it."""
