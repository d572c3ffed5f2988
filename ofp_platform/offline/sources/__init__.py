"""Where the offline plane reads: archive and log together, and how their outages are told."""
