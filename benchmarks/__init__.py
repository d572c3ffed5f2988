"""Benchmarks: each prints a table beside a floor measured in the same run. Their processes are set as those of `ofp` are."""

from ofp_platform.storage.process_settings import collect_rarely

collect_rarely()
