"""Another key signs a head too: a witness, who signs no history that does not begin with what it signed before."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.audit.leaf_rows import kept_node
from ofp_platform.audit.merkle_tree import ProofRefused, check_consistency, consistency_path
from ofp_platform.audit.signing_keys import SigningKey, is_signed
from ofp_platform.audit.tree_heads import AuditRefused, read_heads
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.audit import CO_SIGNATURES, CoSignature, TreeHead, co_signature_path


def co_sign(connection: Connection[Any], objects: ObjectStore, key: SigningKey) -> CoSignature:
    """Sign the newest head, in an object of its own. Again, nothing happens.

    Raises:
        AuditRefused: there is no head, it is not signed, or the log does not continue the head that this key signed last.
        NodeMissing | ObjectStoreUnavailable: see there.
    """
    heads = read_heads(connection)
    if not heads:
        raise AuditRefused("there is no head to sign: `ofp audit append` makes one")
    newest = heads[-1]
    if not is_signed(newest.key_id, newest.signature, newest.signed_bytes):
        raise AuditRefused(f"the head of {newest.tree_size:,} leaves is not signed by key {newest.key_id}")
    earlier = _signed_last(objects, key.key_id)
    if earlier is not None:
        _demand_continued(connection, heads, (earlier, key.key_id), newest)
    signature = CoSignature(
        tree_size=newest.tree_size,
        head_digest=newest.digest,
        key_id=key.key_id,
        signature=key.sign(newest.signed_bytes),
    )
    objects.put_same(co_signature_path(newest.tree_size, key.key_id), canonical_bytes(signature.wire()))
    return signature


def _signed_last(objects: ObjectStore, key_id: str) -> CoSignature | None:
    own_paths = [path for path in objects.list(CO_SIGNATURES) if path.endswith(f"/{key_id}.json")]
    try:
        return CoSignature.model_validate_json(objects.get(own_paths[-1])) if own_paths else None
    except ValueError:
        raise AuditRefused(f"{own_paths[-1]} is no co-signature: `ofp audit verify` says what else is so") from None


def _demand_continued(
    connection: Connection[Any], heads: list[TreeHead], signed_last: tuple[CoSignature, str], newest: TreeHead
) -> None:
    """`signed_last`: what stands as the last co-signature of a key, and that key's id."""
    earlier, key_id = signed_last
    before = next((head for head in heads if head.tree_size == earlier.tree_size), None)
    if before is None or before.digest != earlier.head_digest:
        raise AuditRefused(f"the head of {earlier.tree_size:,} leaves that this key signed is not in the log any more")
    if not is_signed(key_id, earlier.signature, before.signed_bytes):
        raise AuditRefused(
            f"the co-signature of {earlier.tree_size:,} leaves that stands under this key was not made with it: the object"
            f" {co_signature_path(earlier.tree_size, key_id)} was put there, or changed, by somebody else"
        )
    path = consistency_path(before.tree_size, newest.tree_size, lambda level, index: kept_node(connection, level, index))
    try:
        roots = bytes.fromhex(before.root_hash), bytes.fromhex(newest.root_hash)
        check_consistency(before.tree_size, newest.tree_size, roots, path)
    except ProofRefused as error:
        raise AuditRefused(f"the log does not continue the head of {before.tree_size:,} leaves: {error}") from None
