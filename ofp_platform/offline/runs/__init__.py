"""Build runs: the ledger, the lease, the stages of a build."""
