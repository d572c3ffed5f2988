from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ofp_platform.orchestration.partitions import decision_days, event_hours
from ofp_platform_tests.oracle.simulated_log import profile


@pytest.mark.parametrize(("first_day", "last_day"), [("2025-03-01", "2025-03-02"), ("2024-02-29", "2024-02-29")])
def test_hours_and_days_are_those_of_the_profile(tmp_path: Path, first_day: str, last_day: str) -> None:
    chosen = profile(tmp_path, first_day=first_day, last_day=last_day)
    days, hours = decision_days(chosen).get_partition_keys(), event_hours(chosen).get_partition_keys()
    assert (days[0], days[-1]) == (first_day, last_day)
    assert (hours[0], hours[-1], len(hours)) == (f"{first_day}-00:00", f"{last_day}-23:00", 24 * len(days))


def test_a_profile_without_days_lists_from_january_of_the_year_before_to_the_hour_that_is_over(tmp_path: Path) -> None:
    chosen, before = profile(tmp_path, first_day=None, last_day=None), datetime.now(UTC)
    days, keys = decision_days(chosen).get_partition_keys(), event_hours(chosen).get_partition_keys()
    around = (before, datetime.now(UTC))
    assert days[0] in {f"{moment.year - 1}-01-01" for moment in around}
    assert keys[0] in {f"{moment.year - 1}-01-01-00:00" for moment in around}
    assert keys[-1] in {(moment - timedelta(hours=1)).strftime("%Y-%m-%d-%H:00") for moment in around}
