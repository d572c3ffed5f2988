from __future__ import annotations

import numpy as np
import pytest

from ofp_platform.simulation.delays import DelayModel, DelaySampler


def sampler(model: DelayModel, seed: int = 5) -> DelaySampler:
    return DelaySampler(model, np.random.SeedSequence(seed))


def test_delays_do_not_depend_on_how_the_draws_are_cut() -> None:
    model = DelayModel(late_share=0.05)
    whole, whole_late = sampler(model).draw(1_000)
    cut = sampler(model)
    parts = [cut.draw(n) for n in (1, 0, 399, 600)]
    assert np.array_equal(whole, np.concatenate([delays for delays, _ in parts]))
    assert np.array_equal(whole_late, np.concatenate([late for _, late in parts]))


def test_another_seed_gives_other_delays() -> None:
    assert not np.array_equal(sampler(DelayModel(), 1).draw(100)[0], sampler(DelayModel(), 2).draw(100)[0])


def test_late_events_lie_in_the_late_range_and_no_others_do() -> None:
    model = DelayModel(median_seconds=10, sigma=3, late_share=0.1)
    delays, late = sampler(model).draw(20_000)
    assert delays.dtype == np.int64
    assert delays.min() >= 1
    assert delays[~late].max() == 60_000_000  # sigma 3 reaches the cut
    assert delays[late].min() >= 600_000_000
    assert delays[late].max() < 21_600_000_000
    assert 0.09 < late.mean() < 0.11


def test_without_spread_every_delay_is_the_median() -> None:
    delays, late = sampler(DelayModel(median_seconds=2.5, sigma=0, late_share=0)).draw(10)
    assert delays.tolist() == [2_500_000] * 10
    assert not late.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"median_seconds": 0.0}, "median_seconds > 0"),
        ({"sigma": -1.0}, "sigma >= 0"),
        ({"late_share": 1.5}, "between 0 and 1"),
        ({"maximum_seconds": 700.0}, "later than any other"),
        ({"late_maximum_seconds": 10.0}, "later than any other"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DelayModel(**fields)
