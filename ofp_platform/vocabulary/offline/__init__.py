"""The objects of the offline plane's boundary."""
