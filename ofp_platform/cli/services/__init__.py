"""`ofp services`: real servers for the tier local_parity, on this machine and without a container engine."""
