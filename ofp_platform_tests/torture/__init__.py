"""Survival: suites that kill, race, fuzz and corrupt the plane and then compare it with a fold of its log.

Each module of this folder that defines `SUITE` is a suite. `make torture` runs all of them at full length and prints their
tables; the tests beside them run each at a small one.
"""
