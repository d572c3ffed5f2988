"""Where a command works: tiers behind the name of a profile, wiring from the environment, a role for each job."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg import conninfo

from ofp_platform.cli.environment import Environment, split_source, with_tier
from ofp_platform.vocabulary.profile import ProfileError, Tier
from ofp_platform_tests.cli.program import Ofp
from ofp_platform_tests.oracle.simulated_log import write_profile


@pytest.mark.parametrize(
    ("source", "name", "tier"),
    [
        ("demo", "demo", Tier.LOCAL),
        ("demo@production", "demo", Tier.PRODUCTION),
        ("a@b/profile.yaml", "a@b/profile.yaml", Tier.LOCAL),
        ("a@b/profile.yaml@local_parity", "a@b/profile.yaml", Tier.LOCAL_PARITY),
        ("me@host.yaml", "me@host.yaml", Tier.LOCAL),
    ],
)
def test_a_tier_stands_behind_the_name(source: str, name: str, tier: Tier) -> None:
    assert split_source(source) == (name, tier)
    assert split_source(with_tier(name, tier)) == (name, tier)


def test_one_that_is_none_is_refused_in_words(ofp: Ofp) -> None:
    assert (
        "no tier 'prod'; there are local, local_parity, production" in ofp("registry", "show", "--profile", "demo@prod").refused()
    )


def test_wiring_comes_from_the_environment(tmp_path: Path) -> None:
    environment = Environment(
        home=tmp_path, profile="demo@local_parity", object_store_url="s3://objects", kinesis_endpoint_url="http://k"
    )
    profile = environment.load_profile()
    assert (profile.object_store_url, profile.kinesis_endpoint_url, profile.log_kind) == ("s3://objects", "http://k", "kinesis")
    assert profile.policy_rev == Environment(home=tmp_path, profile="demo").load_profile().policy_rev
    path = write_profile(tmp_path)  # which names a folder
    assert Environment(profile=str(path), object_store_url="s3://objects").load_profile().object_store_url == "s3://objects"
    with pytest.raises(ProfileError, match="OFP_OBJECT_STORE_URL"):
        Environment(profile="demo", object_store_url="ftp://objects").load_profile()


def test_another_folder_finds_the_same_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Environment(profile="p.yaml@production").lasting_profile_source == f"{tmp_path}/p.yaml@production"
    assert Environment(profile="demo@local_parity").lasting_profile_source == "demo@local_parity"


def test_a_named_server_has_the_roles_where_that_is_said() -> None:
    dsn = "host=db user=ofp_owner dbname=plane sslmode=verify-full"
    assert Environment(database_url=dsn, role_per_job=False).dsn("serving") == dsn
    parts = conninfo.conninfo_to_dict(Environment(database_url=dsn, role_per_job=True).dsn("serving"))
    assert parts == {"host": "db", "user": "ofp_serving", "dbname": "plane", "sslmode": "verify-full"}
    assert Environment(database_url=dsn, role_per_job=True).dsn("owner") == dsn
