"""Survival: suites that kill, race, fuzz and corrupt the plane and then compare it with a fold of its log.

Each folder is a suite: its module `suite` defines `SUITE`. `make torture` runs all of them at full length and prints their
tables; the tests beside them run each at a small one.
"""
