"""Somebody with all rights edits, deletes, reorders and back-dates what the audit log is made of; see `suite`."""
