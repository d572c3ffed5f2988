"""Terminal output: progress, JSON, refusals in words."""
