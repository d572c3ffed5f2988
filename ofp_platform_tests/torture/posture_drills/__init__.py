"""Drills of the kill switch, while the network of who decides is parted."""
