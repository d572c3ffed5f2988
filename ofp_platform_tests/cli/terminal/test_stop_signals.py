"""SIGTERM and Ctrl-C end a command between two steps."""

from __future__ import annotations

import signal

import pytest

from ofp_platform.cli.terminal.stop_signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_either_signal_sets_the_event(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = stop_on_signals()
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.wait(20)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
