"""The vectors in contracts/audit_proof_vectors, made anew: `python -m ofp_platform_tests.audit.proof_vectors` writes them.

A log of seven leaves: a head over three hands it on to a second key, whose head over seven a witness signs too. The fifth leaf is
a decision with its snapshot, its event and two events inside a value. Each broken proof is the good one with members replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from ofp_platform.audit.merkle_tree import Frontier, inclusion_path, leaf_hash
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.audit.tree_heads import HeadFacts, signed_head
from ofp_platform.vocabulary.canonical import canonical_bytes, jcs_bytes, sha256_hex
from ofp_platform.vocabulary.loop.audit import AuditLeaf, AuditProof, CoSignature, ProvenEvent, ProvenSnapshot, TreeHead
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, loop_decision_id
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.audit.conftest import PINS, decision

FOLDER = Path(__file__).resolve().parents[2] / "contracts" / "audit_proof_vectors"
FIRST, SECOND, WITNESS, STRANGER = (SigningKey.of_seed(letter * 32) for letter in (b"a", b"b", b"w", b"x"))
VECTOR = (
    "feature_snapshot_hash",
    "feature_keys",
    "feature_groups",
    "feature_definition_set",
    "run_config_digest",
    "input_basis",
)
EVENT = {
    "event_type": "card_payment",
    "payload": {"amount": 12.5, "account_id": "a", "note": "caf\u00e9 \u20ac \U0001f600"},
    "pins": PINS.wire(),
    "schema_version": "v1",
    "ts_utc": "2026-01-01T00:00:00Z",
}


def _event(offset: int, text: bytes, **changes: Any) -> ProvenEvent:
    content = {
        "stream_name": "payments",
        "partition_id": "0000",
        "offset": offset,
        "event_id": f"event-{offset}",
        "event_type": "card_payment",
        "ts_utc": "2026-01-01T00:00:00Z",
        "payload_hash": sha256_hex(text),
    }
    return ProvenEvent.model_validate({**content, **changes})


def good_proof() -> AuditProof:
    """The proof of a decision by a rule, from its vector."""
    record = decision(1)
    hashed = {
        "contract_version": "ofp_public_contracts_v0",
        **{name: record.wire()[name] for name in ("context_pins", "as_of_time_utc", "feature_keys", "feature_groups")},
        "registry_digest": record.feature_definition_set.digest,
        "run_config_digest": record.run_config_digest,
        "values": [{"key_type": "account", "key_id": "a", "by_group": []}],
        "freshness": [],
        "warnings": [],
        "input_basis": record.input_basis.model_dump(mode="json"),
    }
    hashed_text = canonical_bytes(hashed)
    record = decision(1, feature_snapshot_hash=sha256_hex(hashed_text))
    text = jcs_bytes(EVENT)
    return _proof(record).model_copy(
        update={
            "snapshot": ProvenSnapshot(feature_snapshot_hash=sha256_hex(hashed_text), hashed=hashed_text.decode()),
            "origin_event": _event(1, text, envelope=text.decode()),
            "events": (_event(0, b"other"), _event(1, text)),
        }
    )


def proof_without_vector() -> AuditProof:
    """The proof of a decision by the plane, which had nothing to decide from: no posture was said, no bundle in force."""
    at = {"stream_name": "payments", "partition_id": "0000", "offset": 1}
    named = loop_decision_id("event-1", None, Position.model_validate(at))
    rule_only = ("rule", "score", *VECTOR)
    content = {name: value for name, value in decision(1).wire().items() if name not in rule_only}
    content |= {
        "contract_version": "v1",
        "decision_id": named,
        "policy_rev": f"1.{'7' * 64}",
        "slot": "active",
        "posture": {
            "in_force": {"mode": "FAIL_CLOSED", "sequence": None, "position": None},
            "applied_mode": "FAIL_CLOSED",
            "fail_closed": "review",
        },
        "reason_codes": [],
        "outcome": "review",
    }
    return _proof(DecisionRecord.model_validate(content)).model_copy(update={"origin_event": _event(1, jcs_bytes(EVENT))})


def _proof(record: DecisionRecord) -> AuditProof:
    """The record as the fifth of seven leaves, without any evidence."""
    content = canonical_bytes(record.wire())
    leaves = [
        AuditLeaf(
            leaf_kind="governance_fact",
            subject=f"{number}" * 64,
            record_digest=f"{number}" * 64,
            reference=f"ofp.governance_fact/{str(number) * 64}",
        )
        for number in range(7)
    ]
    leaves[4] = AuditLeaf(
        leaf_kind="decision",
        subject=record.decision_id,
        record_digest=sha256_hex(content),
        reference=f"ofp.decision_record/{record.decision_id}",
    )
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for index, leaf in enumerate(leaves):
        nodes[0, index] = leaf_hash(leaf.encoded())
        nodes |= {(level, place): above for level, place, above in frontier.add(nodes[0, index])}

    def node(level: int, index: int) -> bytes:
        return nodes[level, index]

    handed_on = signed_head(
        FIRST, None, HeadFacts(3, Frontier.at(3, node).root, "2026-01-02T00:00:00Z", None, next_key_id=SECOND.key_id)
    )
    head = signed_head(SECOND, handed_on, HeadFacts(7, Frontier.at(7, node).root, "2026-01-03T00:00:00Z", "2026-01-02T23:45:00Z"))
    co_signature = CoSignature(
        tree_size=7, head_digest=head.digest, key_id=WITNESS.key_id, signature=WITNESS.sign(head.signed_bytes)
    )
    return AuditProof(
        leaf=leaves[4],
        leaf_index=4,
        path=tuple(sibling.hex() for sibling in inclusion_path(4, 7, node)),
        head=head.model_copy(update={"co_signatures": (co_signature,)}),
        key_chain=(handed_on,),
        record=content.decode(),
    )


def _signed(head: TreeHead, key: SigningKey, **changes: Any) -> dict[str, Any]:
    """The head with other members, signed again by a key."""
    changed = head.model_copy(update={**changes, "co_signatures": ()})
    return changed.model_copy(update={"signature": key.sign(changed.signed_bytes)}).wire()


def broken_proofs(good: AuditProof) -> list[dict[str, Any]]:
    """Each: a name, the members of the good proof that are replaced, and how the fault begins."""
    wire = good.wire()
    record = json.loads(good.record)
    assert good.snapshot is not None
    other_record = canonical_bytes({**record, "outcome": "decline"}).decode()
    other_hashed = good.snapshot.hashed.replace('"account"', '"card"')
    other_decision = canonical_bytes({**record, "event_id": "event-9"}).decode()
    other_leaf = {**wire["leaf"], "record_digest": sha256_hex(other_record.encode())}

    def origin(**changes: Any) -> dict[str, Any]:
        return {"origin_event": {**wire["origin_event"], **changes}}

    def head(**changes: Any) -> dict[str, Any]:
        return {"head": {**wire["head"], **changes}}

    event = wire["events"][0]
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("another record", {"record": other_record}, "record: its SHA-256 is not"),
        ("another record, and a leaf of it", {"record": other_record, "leaf": other_leaf}, "inclusion: the path leads to"),
        ("another record under the id", {"record": other_decision}, "record: its SHA-256 is not"),
        ("another place in the tree", {"leaf_index": 5}, "inclusion: the path leads to"),
        ("a place behind the tree", {"leaf_index": 7}, "inclusion: a tree of 7 leaves"),
        ("a path that is too short", {"path": wire["path"][:-1]}, "inclusion: the path is too short"),
        ("a path that is too long", {"path": [*wire["path"], "0" * 64]}, "inclusion: the path is too long"),
        ("a hash of the path", {"path": ["0" * 64, *wire["path"][1:]]}, "inclusion: the path leads to"),
        ("another root", head(root_hash="0" * 64), "head: the signature is not"),
        ("another time", head(at_utc="2026-01-04T00:00:00Z"), "head: the signature is not"),
        ("a signature with one bit more", head(signature="0" * 128), "head: the signature is not"),
        ("a head of a stranger", {"head": _signed(good.head, STRANGER, key_id=STRANGER.key_id)}, "key chain: key"),
        ("a head of the key that handed on", {"head": _signed(good.head, FIRST, key_id=FIRST.key_id)}, "key chain: key"),
        ("no chain of keys", {"key_chain": []}, "key chain: the log is not that of"),
        (
            "a chain to a stranger",
            {
                "key_chain": [{**wire["key_chain"][0], "next_key_id": STRANGER.key_id}],
                "head": _signed(good.head, STRANGER, key_id=STRANGER.key_id),
            },
            "key chain: the signature is not",
        ),
        (
            "a co-signature of another head",
            head(co_signatures=[{**wire["head"]["co_signatures"][0], "head_digest": "0" * 64}]),
            "co-signature: it is not",
        ),
        (
            "a snapshot of other values",
            {"snapshot": {**wire["snapshot"], "hashed": other_hashed}},
            "snapshot: its text does not have",
        ),
        (
            "a snapshot of another decision",
            {"snapshot": {"feature_snapshot_hash": sha256_hex(other_hashed.encode()), "hashed": other_hashed}},
            "snapshot: it is not the one",
        ),
        ("an event at another position", origin(offset=2), "origin event: it stands at another position"),
        ("another event", origin(event_id="event-2"), "origin event: it is another event"),
        ("another payload", origin(envelope=wire["origin_event"]["envelope"] + " "), "origin event: its text does not have"),
        ("an event behind the basis", {"events": [{**event, "offset": 2}]}, "events: event-0 at 0000:2 is not in the basis"),
        ("an event of another partition", {"events": [{**event, "partition_id": "0001"}]}, "events: event-0 is of a partition"),
        ("a member that nobody knows", {"extra": 1}, "file: it has a member extra"),
        ("another version", {"contract_version": "v1"}, "file: it is no audit_proof v0"),
        ("a fraction", {"leaf_index": 4.0}, "file: 4.0 is no integer"),
    ]
    return [{"name": name, "replace": replaced, "fault": fault} for name, replaced, fault in cases]


def vectors() -> dict[str, bytes]:
    """File name to content."""
    good = good_proof()
    keys = {"first_key": FIRST.key_id, "second_key": SECOND.key_id, "stranger": STRANGER.key_id}
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {
        "good.json": canonical_bytes(good.wire()) + b"\n",
        "good_v1.json": canonical_bytes(proof_without_vector().wire()) + b"\n",
        "keys.json": orjson.dumps(keys, option=options),
        "broken.json": orjson.dumps(broken_proofs(good), option=options),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_bytes(content)
