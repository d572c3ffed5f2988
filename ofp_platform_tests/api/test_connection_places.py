"""Places for connections: counted, given back, and a lane in which a crowd displaces itself."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from ofp_platform.api.connection_places import ConnectionLimits, Places, TooFewFiles, peer_of

SMALL = ConnectionLimits(places=3, places_of_a_peer=2, lane=2)


def test_places_in_total_and_of_a_peer() -> None:
    places: Places[str] = Places(SMALL)
    assert [places.enter(name, peer) for name, peer in (("a1", "a"), ("a2", "a"), ("b1", "b"))] == [(True, None)] * 3
    assert places.enter("c1", "c") == (False, None)
    assert (places.ordinary_count, places.reserved_count) == (3, 1)
    places.leave("b1")
    assert places.enter("a3", "a") == (False, None)  # there is a place, and not for this peer
    assert places.enter("b2", "b") == (True, None)
    places.leave("a1")
    assert places.enter("a4", "a") == (True, None)
    for name in ("a2", "a4", "b2", "c1", "a3"):
        places.leave(name)
    assert (places.ordinary_count, places.reserved_count) == (0, 0)
    assert [places.enter(name, "a")[0] for name in ("a5", "a6")] == [True, True]


def test_a_crowd_in_the_reserved_lane_displaces_itself() -> None:
    places: Places[str] = Places(ConnectionLimits(places=1, places_of_a_peer=1, lane=3))
    places.enter("first", "a")
    places.enter("prober", "p")
    assert places.enter("crowd 0", "a") == (False, None)
    assert places.enter("crowd 1", "a") == (False, None)
    for number in range(2, 50):
        assert places.enter(f"crowd {number}", "a") == (False, f"crowd {number - 2}")
        places.leave(f"crowd {number - 2}")
    assert places.reserved_count == 3
    assert places.enter("another prober", "q") == (False, "crowd 48")


def test_a_connection_that_was_displaced_leaves_nothing() -> None:
    places: Places[str] = Places(ConnectionLimits(places=1, places_of_a_peer=1, lane=1))
    places.enter("first", "a")
    places.enter("second", "a")
    assert places.enter("third", "a") == (False, "second")
    places.leave("second")
    places.leave("second")
    assert (places.ordinary_count, places.reserved_count) == (1, 1)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_peer(address: str, peer: str) -> None:
    assert peer_of(address) == peer


def test_limits_within_a_number_of_files() -> None:
    limits = ConnectionLimits()
    assert limits.within(limits.files) is limits
    for files in (256, 300, 512, 1_024, 4_096, limits.files - 1):
        fitting = limits.within(files)
        assert fitting.files <= files
        assert fitting.places_of_a_peer <= fitting.places
        assert min(fitting.places, fitting.lane, fitting.backlog) > 0
    with pytest.raises(TooFewFiles, match="may open 200 files"):
        limits.within(200)


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    program = (
        "import resource; from ofp_platform.api.connection_places import ConnectionLimits, fit_file_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        "limits, words = fit_file_limit(ConnectionLimits())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], limits.places, words)"
    )
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 16_384)
    run = [sys.executable, "-c"]
    said = subprocess.run([*run, program.format(hard=hard)], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(ConnectionLimits().files), "8192", "None"]
    said = subprocess.run([*run, program.format(hard=1_024)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("1024 592 this process may open 1024 files")
