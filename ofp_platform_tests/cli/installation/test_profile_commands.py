"""`ofp profile`, and what production refuses: in words, with the variable to change, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment, unsafe_wiring
from ofp_platform.vocabulary.profile import ProfileError
from ofp_platform_tests.cli.program import Ofp, call
from ofp_platform_tests.oracle.strategies import PINS

CONTENT = {
    "profile_name": "town",
    "stream_name": "payments",
    "partition_key": "payload.account_id",
    "context_pins": PINS,
    "pack": "card_payments",
    "tiers": {"local_parity": {"log_kind": "kinesis"}, "production": {"limits": {"max_keys": 7}}},
}
SAFE = {
    "OFP_DATABASE_URL": "postgresql://ofp_serving:secret@db/plane?sslmode=verify-full",
    "OFP_OBJECT_STORE_URL": "s3://objects",
}


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "profile.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(CONTENT, file)
    return str(path)


def test_show_names_policy_and_wiring_and_no_secret(ofp: Ofp, source: str) -> None:
    shown = json.loads(ofp("profile", "show", "--json", "--profile", f"{source}@local_parity", **SAFE).out)
    assert shown["policy_rev"] == Environment(profile=source).load_profile().policy_rev
    assert shown["wiring"]["log_kind"] == "kinesis"
    assert shown["wiring"]["object_store_url"] == "s3://objects"
    assert shown["policy"]["limits"]["max_keys"] == 100
    lines = ofp("profile", "show", "--profile", source, **SAFE).out
    assert "sslmode verify-full" in lines
    assert "secret" not in lines + json.dumps(shown)


def test_diff_says_what_a_promotion_changes(ofp: Ofp, source: str) -> None:
    named = ("--profile", source)
    assert ofp("profile", "diff", "local", "local", *named).out == "nothing differs\n"
    parity = json.loads(ofp("profile", "diff", "local", "local_parity", "--json", *named).out)
    assert parity == {"wiring.log_kind": ["postgres", "kinesis"]}
    production = json.loads(ofp("profile", "diff", "local", "production", "--json", *named).out)
    assert set(production) == {"policy_rev", "policy.limits.max_keys"}
    assert "policy.limits.max_keys" in ofp("profile", "diff", source, f"{source}@production").out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"OFP_DATABASE_URL": ""}, "OFP_DATABASE_URL"),
        ({"OFP_DATABASE_URL": "postgresql://db/plane"}, "sslmode=verify-full"),
        ({"OFP_DATABASE_URL": "postgresql://db/plane?sslmode=require"}, "sslmode=verify-full"),
        ({"OFP_DATABASE_URL": "postgresql:///plane?host=/run/postgresql,db"}, "sslmode=verify-full"),
        ({"OFP_DATABASE_URL": "postgresql:///plane?host=/run/postgresql&hostaddr=10.0.0.1"}, "sslmode=verify-full"),
        ({"OFP_READ_DATABASE_URL": "postgresql://replica/plane"}, "OFP_READ_DATABASE_URL"),
        ({"OFP_OBJECT_STORE_URL": ""}, "OFP_OBJECT_STORE_URL"),
        ({"OFP_OBJECT_STORE_URL": "file:///srv/objects"}, "OFP_OBJECT_STORE_URL"),
        ({"OFP_OBJECT_STORE_ENDPOINT_URL": "http://objects:8333"}, "OFP_OBJECT_STORE_ENDPOINT_URL"),
        ({"OFP_KINESIS_ENDPOINT_URL": "http://kinesis:4567"}, "OFP_KINESIS_ENDPOINT_URL"),
    ],
)
def test_production_refuses_what_is_unsafe(tmp_path: Path, source: str, changes: dict[str, str], words: str) -> None:
    variables = {**SAFE, "OFP_HOME": str(tmp_path), **changes}
    refusal = call("registry", "show", "--profile", f"{source}@production", **variables).refused()
    assert "not with this wiring" in refusal
    assert words in refusal
    assert "secret" not in refusal


def test_production_takes_no_kafka_without_tls_and_none_to_develop_on(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(source).read_text(encoding="utf-8")
    Path(source).write_text(text + "\nlog_kind: kafka\n", encoding="utf-8")
    environment = Environment(
        profile=f"{source}@production", database_url=SAFE["OFP_DATABASE_URL"], object_store_url="s3://objects"
    )
    for name in ("OFP_KAFKA_SECURITY_PROTOCOL", "OFP_KAFKA_DEVELOPMENT_BROKER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProfileError, match="OFP_KAFKA_SECURITY_PROTOCOL"):
        environment.load_profile()
    monkeypatch.setenv("OFP_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    assert environment.load_profile().log_kind == "kafka"
    monkeypatch.setenv("OFP_KAFKA_DEVELOPMENT_BROKER", "1")
    with pytest.raises(ProfileError, match="OFP_KAFKA_DEVELOPMENT_BROKER"):
        environment.load_profile()


def test_what_is_safe_is_let_through(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for dsn in (SAFE["OFP_DATABASE_URL"], "postgresql:///plane?host=/run/postgresql", "host=db sslrootcert=system"):
        environment = Environment(profile=f"{source}@production", database_url=dsn, object_store_url="s3://objects")
        assert unsafe_wiring(environment, environment.load_profile()) == []
    monkeypatch.setenv("OFP_DAGSTER_POSTGRES_URL", "postgresql://dagster/runs")
    with pytest.raises(ProfileError, match="OFP_DAGSTER_POSTGRES_URL"):
        environment.load_profile()


def test_production_serves_no_keys_in_plain_text(ofp: Ofp, source: str, tmp_path: Path) -> None:
    variables = {**SAFE, "OFP_PRINCIPALS": str(tmp_path / "principals.json")}
    assert ofp("principal", "add", "reader", "--scope", "features:read", "--profile", source, **variables).code == 0
    outcome = ofp("serve", "--host", "0.0.0.0", "--profile", f"{source}@production", **variables)
    assert "--tls-certificate" in outcome.refused()
