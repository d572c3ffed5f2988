"""The difference of two packs in words, and the refusal of a changed group under an old version."""

from __future__ import annotations

from ofp_platform.registry.diff import diff_packs
from ofp_platform.registry.history import check
from ofp_platform.registry.pack import group_digests, load_pack, shipped_pack, shipped_pack_text


def test_no_difference() -> None:
    pack = shipped_pack("handbook")
    diff = diff_packs(pack, pack)
    assert (diff.lines, diff.publishable) == ((), True)
    assert check(group_digests(pack), pack) == []
    assert check({}, pack) == []


def test_a_changed_group_under_its_version_is_refused() -> None:
    old = shipped_pack("handbook")
    text = shipped_pack_text("handbook")
    text = text.replace(
        "name: count_7d, aggregation: count, events: [transaction], window: 7d",
        "name: count_8d, aggregation: count, events: [transaction], window: 8d",
    )
    text = text.replace(
        "name: count_1d, aggregation: count, events: [transaction], window: 1d",
        "name: count_1d, aggregation: count, events: [transaction], window: 36h",
    )
    new = load_pack(text.replace("revision: 1", "revision: 2"))
    diff = diff_packs(old, new)
    assert diff.lines == (
        "~ revision: 1 -> 2",
        "! group account_activity v1 changed under the same version: publish another version",
        "    ~ feature count_1d: window: 1d -> 36h",
        "    - feature count_7d",
        "    + feature count_8d",
    )
    assert (diff.refused, diff.publishable) == ((("account_activity", "v1"),), False)
    (refusal,) = check(group_digests(old), new)
    assert (refusal.group_name, refusal.group_version) == ("account_activity", "v1")
    assert str(refusal).startswith("group account_activity v1 was published with another content (")
    assert refusal.published != refusal.offered


def test_another_version_is_the_way_to_change() -> None:
    old = shipped_pack("handbook")
    text = shipped_pack_text("handbook").replace("version: v1\n    key_type: account", "version: v2\n    key_type: account")
    new = load_pack(text.replace("ttl_seconds: 2592000", "ttl_seconds: 86400", 1))
    diff = diff_packs(old, new)
    assert diff.lines == ("+ group account_activity v2 (account, 6 features)", "- group account_activity v1")
    assert diff.publishable
    assert check(group_digests(old), new) == []
    # and a version once published stays taken, also when no pack has it any more
    assert len(check(group_digests(old) | {("account_activity", "v2"): "0" * 64}, new)) == 1


def test_events_that_changed() -> None:
    old = shipped_pack("handbook")
    text = shipped_pack_text("handbook").replace("amount_minor: integer", "amount_minor: integer\n      place: string")
    text = text.replace("  fraud_report:\n", "  chargeback:\n    class: dispute\n    keys: {card: card_id}\n  fraud_report:\n")
    diff = diff_packs(old, load_pack(text))
    assert diff.changed_events == ("chargeback", "transaction")
    assert diff.lines == ("+ event chargeback", "~ event transaction", "    + fields.place: string")
    assert diff.publishable


def test_a_changed_routing_changes_the_groups_that_read_it() -> None:
    old = shipped_pack("handbook")
    new = load_pack(shipped_pack_text("handbook").replace("merchant: terminal_id", "merchant: shop_id"))
    diff = diff_packs(old, new)
    assert diff.refused == (("merchant_risk", "v1"),)
    assert "    ~ events.transaction.key: terminal_id -> shop_id" in diff.lines
