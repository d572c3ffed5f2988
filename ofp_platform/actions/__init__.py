"""Actions: the only code that does anything outside. Intents are recorded, allowed, tried, and end once."""
