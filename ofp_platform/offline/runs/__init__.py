"""Requests on their way: the ledger, the lease, the stages of a build."""
