"""Promotions of bundles that race and are killed: at the end the history is one line."""
