"""`ofp identity` and the features of an entity, from a file of links to a rebuild."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.vocabulary.profile import load_profile
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import PINS, append, write_profile

PACK = """
pack_id: ring
revision: 1
events:
  card_payment:
    keys: {account: account_id, device: device_id}
    fields: {amount_minor: integer}
groups:
  - {name: device_use, version: v1, key_type: device, ttl_seconds: 86400, identity: resolved, features: [
      {name: payments_30d, aggregation: count, events: [card_payment], window: 30d}]}
  - {name: device_alone, version: v1, key_type: device, ttl_seconds: 86400, features: [
      {name: payments_30d, aggregation: count, events: [card_payment], window: 30d}]}
"""
AS_OF = "2026-01-03T00:00:00Z"


@pytest.fixture(scope="module")
def variables(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A plane with payments, of which no link is known yet."""
    folder = tmp_path_factory.mktemp("identity")
    (folder / "pack.yaml").write_text(PACK)
    path = write_profile(folder, pack=str(folder / "pack.yaml"), context_stream="links")
    found = {"OFP_HOME": str(folder), "OFP_DATABASE_URL": module_dsn, "OFP_PROFILE": str(path)}
    with Plane.open(load_profile(path), module_dsn) as plane:
        append(plane.log)
    assert call("projector", "catch-up", **found).code == 0
    return found


def link(event_id: str, member: str, canonical: str, event_type: str = "identity_link") -> str:
    payload = {"key_type": "device", "member": member, "canonical": canonical, "effective_time_utc": "2026-01-01T00:00:00Z"}
    head = {"event_id": event_id, "event_type": event_type, "schema_version": "1", "ts_utc": "2026-01-01T00:00:00Z"}
    return json.dumps({**head, **PINS, "payload": payload}) + "\n"


def payments(variables: dict[str, str], device: str, group: str) -> tuple[int, dict[str, object]]:
    asked = call("features", "get", "--key", f"device:{device}", "--group", f"{group}:v1", "--as-of", AS_OF, **variables)
    assert asked.code == 0, asked
    answer = json.loads(asked.out)
    return answer["snapshot"]["by_key"][0]["by_group"][0]["features"]["payments_30d"], answer


def devices(variables: dict[str, str]) -> list[str]:
    profile = load_profile(Path(variables["OFP_PROFILE"]))
    with Plane.open(profile, variables["OFP_DATABASE_URL"]) as plane, plane.pool.connection() as connection:
        rows = connection.execute(
            "SELECT DISTINCT key_id FROM ofp.tail UNION SELECT DISTINCT key_id FROM ofp.chunk ORDER BY 1"
        ).fetchall()
    return [key_id for (key_id,) in rows if "device" in key_id]


@pytest.fixture(scope="module")
def ring(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three devices that are one; before their links were folded, nothing was joined."""
    one, two, three = devices(variables)[:3]
    alone = payments(variables, one, "device_alone")[0]
    assert alone > 0
    assert call("identity", "catch-up", **variables).code == 0
    assert payments(variables, one, "device_use")[0] == alone  # the graph is there, and knows nothing of it
    file = tmp_path_factory.mktemp("links") / "links.jsonl"
    links = link("l-1", two, one) + link("l-2", three, two) + link("l-3", three, three)
    file.write_text(links + link("l-4", "x", "y", "identity_unlink"))
    assert call("log", "append", str(file), "--context", **variables).out.startswith("4 appended, 0 refused")
    assert payments(variables, one, "device_use")[0] == alone  # nobody has folded it yet
    said = json.loads(call("identity", "catch-up", "--json", **variables).out)
    assert (said["records"], said["links"]) == (4, 3)
    return one, two, three


def test_from_a_file_of_links_to_features(variables: dict[str, str], ring: tuple[str, str, str]) -> None:
    one, two, three = ring
    alone = [payments(variables, name, "device_alone")[0] for name in ring]
    total, answer = payments(variables, three, "device_use")
    assert total == sum(alone)
    assert payments(variables, three, "device_alone")[0] == alone[2]
    status = call("identity", "status", **variables).out
    assert "unlinks of nothing: 1" in status
    assert "MALFORMED_PAYLOAD" in status
    assert "member and canonical are one entity" in status
    facts = json.loads(call("identity", "status", "--json", **variables).out)
    assert (facts["failures"], facts["lag"], facts["unmet_unlinks"]) == (1, 0, 1)
    shown = json.loads(call("identity", "show", f"device:{three}", "--as-of", AS_OF, "--json", **variables).out)
    assert (shown["canonical_id"], shown["members"]) == (one, sorted(ring))
    assert shown["graph_version"] == answer["provenance"]["graph_version"]  # type: ignore[index]
    text = call("identity", "show", f"device:{three}", "--as-of", AS_OF, **variables).out
    assert f"canonical  device:{one}" in text
    assert f"link       {three} to {two} since 2026-01-01T00:00:00Z\n" in text
    early = json.loads(call("identity", "show", f"device:{three}", "--as-of", "2025-01-01T00:00:00Z", "--json", **variables).out)
    assert early["members"] == [three]


def test_a_served_entity_is_rebuilt_and_explained(variables: dict[str, str], ring: tuple[str, str, str]) -> None:
    three = ring[2]
    profile = load_profile(Path(variables["OFP_PROFILE"]))
    with Plane.open(profile, variables["OFP_DATABASE_URL"]) as plane:
        row = plane.known_live()
        body = {
            "context_pins": PINS,
            "feature_keys": [{"key_type": "device", "key_id": three}],
            "feature_groups": [{"group_name": "device_use", "group_version": "v1"}],
            "as_of_time_utc": AS_OF,
        }
        answer = plane.reader(row).answer(json.dumps(body).encode())
        SnapshotStore(plane.pool, plane.objects).materialise([answer])
    rebuilt = call("snapshot", "rebuild", answer.hash, **variables)
    assert (rebuilt.code, rebuilt.out.splitlines()[-1]) == (0, "MATCH"), rebuilt
    explained = json.loads(call("snapshot", "explain", answer.hash, "--feature", "payments_30d", "--json", **variables).out)
    served = json.loads(answer.body)["snapshot"]["by_key"][0]["by_group"][0]["features"]["payments_30d"]
    assert len(explained["windows"][0]["events"]) == served > 0


def test_a_conflict_is_shown(variables: dict[str, str], tmp_path: Path) -> None:
    one, two = devices(variables)[3:5]
    file = tmp_path / "links.jsonl"
    file.write_text(link("l-8", two, one) + link("l-9", two, "another"))
    assert call("log", "append", str(file), "--context", **variables).code == 0
    assert call("projector", "catch-up", **variables).code == 0  # which folds the links, too
    shown = call("identity", "show", f"device:{two}", "--as-of", AS_OF, **variables).out
    assert f"conflict   several_canonicals: {two}, another, {one}" in shown
    assert "does not count" in shown
    _, answer = payments(variables, two, "device_use")
    (warning,) = [one for one in answer["provenance"]["warnings"] if one["code"] == "IDENTITY_CONFLICT"]  # type: ignore[index]
    assert warning["conflict"] == {"kind": "several_canonicals", "key_ids": [two, "another", one]}


def test_an_observed_identifier_has_an_id_everywhere() -> None:
    digest = sha256(b"email|token-1").hexdigest()[:32]
    assert call("identity", "mint", "device", "email", "token-1").out == f"e_device_{digest}\n"
    assert "is a raw identifier" in call("identity", "mint", "device", "email", "somebody@example.com").refused()
    assert "there is no key type 'town'" in call("identity", "mint", "town", "email", "t").refused()


def test_what_cannot_be_asked(variables: dict[str, str], tmp_path: Path) -> None:
    assert "the key is written TYPE:ID" in call("identity", "show", "device", **variables).refused()
    assert "'town'" in call("identity", "show", "town:x", **variables).refused()
    assert "names no context_stream" in call("identity", "status", **{**variables, "OFP_PROFILE": "demo"}).refused()
