"""The audit log is handed on from one key to another: a governance fact, and a head over it that names the next key."""

from __future__ import annotations

from collections.abc import Callable

from ofp_platform.audit.appending import HeadTimes, add_leaves_and_head, held_log
from ofp_platform.audit.leaf_sources import SOURCE_OF
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.audit.tree_heads import AuditRefused, key_after, put_head
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.loop.audit import TreeHead
from ofp_platform.vocabulary.offline.governance_fact import AuditKeyRotated
from ofp_platform.vocabulary.times import format_time

_FACT = SOURCE_OF["governance_fact"]


def rotate_key(
    pool: Pool, objects: ObjectStore, key: SigningKey, next_key_id: str, actor_and_reason: tuple[str, str], now: Callable[[], int]
) -> TreeHead:
    """Hand the log on, signed by the former key `key`; from then on the next one signs. `actor_and_reason`: for the record.

    Raises:
        AuditRefused: there is no head yet, it is that key's already, it is not `key`'s turn; or as `append_records`.
    """
    with held_log(pool, objects) as log:
        head, writer = log.edge.head, log.writer
        if head is None:
            raise AuditRefused("there is no head yet: the first append decides whose log it is (`ofp audit append --key FILE`)")
        if next_key_id == key_after(head):
            raise AuditRefused(f"the log is key {next_key_id}'s already")
        at_utc = format_time(now())
        fact = AuditKeyRotated(
            from_key_id=key.key_id, to_key_id=next_key_id, actor=actor_and_reason[0], reason=actor_and_reason[1], at_utc=at_utc
        )
        digest = digest_of(fact.wire())
        with writer.transaction():
            append_facts_with(writer, [fact])
            record = _FACT.records(writer, objects, [digest])[digest]
            rotation = add_leaves_and_head(log, key, [record.leaf(_FACT.leaf_kind)], HeadTimes(at_utc, None), next_key_id)
        put_head(objects, rotation)
    return rotation
