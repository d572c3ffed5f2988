"""Random worlds: logs from a seed through both planes and the oracle."""
