"""The offline plane: replays the log, proves what was served, publishes training sets. It never serves decisions."""
