"""The sources of the offline plane: archive and log together, and their outages as refusals."""
