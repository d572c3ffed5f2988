"""The audit log: leaves, signed tree heads, co-signatures, and the proof that anybody can check by himself.

A *leaf* names one record by its digest; its canonical bytes are hashed as RFC 6962 says. A *tree head* is signed over its RFC
8785 bytes without signatures, so its digest stays when others sign it too. A key is known by its public half: `key_id` is the
Ed25519 public key itself, 64 hex digits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.model import Digest, Model, Name, Time
from ofp_platform.vocabulary.serving import Count, Version

HEADS = "audit/heads"
CO_SIGNATURES = "audit/co_signatures"
"""Folders of the object store."""
MOST_PROOF_BYTES = 32_768
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="an Ed25519 public key, 64 hex digits")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$", description="an Ed25519 signature, 128 hex digits")]
Subject = Annotated[str, Field(min_length=1, max_length=300, description="the id of a record among those of its kind")]


class AuditLeaf(Model):
    """One record, by reference. `record_digest`: SHA-256 of its bytes; `reference`: where it is."""

    kind: Literal["audit_leaf"] = "audit_leaf"
    contract_version: Version = "v0"
    leaf_kind: Name
    subject: Subject
    record_digest: Digest
    reference: Annotated[str, Field(min_length=1, max_length=400)]

    def encoded(self) -> bytes:
        """The bytes that are hashed into the tree."""
        return canonical_bytes(dict(self.__dict__))


class CoSignature(Model):
    """The signature of another key over the signed bytes of a head."""

    kind: Literal["audit_co_signature"] = "audit_co_signature"
    contract_version: Version = "v0"
    tree_size: Count
    head_digest: Digest
    key_id: KeyId
    signature: Signature

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary."""
        return dict(self.__dict__)


class TreeHead(Model):
    """The state of the log at one size, signed.

    `log_id`: SHA-256 of the public key that signed the first head; `previous_head_digest`: of the head before (none: the first);
    `covers_until_utc`: every record that was recorded before that time has a leaf in front of it, or is in quarantine (none: the
    appender was not through); `next_key_id`: the key that signs from the next head on, where it is another one.
    """

    kind: Literal["audit_tree_head"] = "audit_tree_head"
    contract_version: Version = "v0"
    log_id: Digest
    tree_size: Annotated[int, Field(ge=1, le=2**53 - 1)]
    root_hash: Digest
    at_utc: Time
    covers_until_utc: Time | None = None
    previous_head_digest: Digest | None = None
    key_id: KeyId
    next_key_id: KeyId | None = None
    signature: Signature
    co_signatures: tuple[CoSignature, ...] = Field(default=(), strict=False)

    def wire(self) -> dict[str, Any]:
        """As stored: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def encoded(self) -> bytes:
        """The bytes of its object."""
        return canonical_bytes(self.wire())

    @property
    def signed_bytes(self) -> bytes:
        """The RFC 8785 bytes that signatures are over: all of it but signatures."""
        wire = self.wire()
        del wire["signature"], wire["co_signatures"]
        return canonical_bytes(wire)

    @property
    def digest(self) -> str:
        """SHA-256 over the signed bytes."""
        return sha256_hex(self.signed_bytes)


class ProvenSnapshot(Model):
    """A served snapshot. `hashed`: the text whose SHA-256 is the hash."""

    feature_snapshot_hash: Digest
    hashed: str


class ProvenEvent(Model):
    """One event of the log, by its position. `payload_hash` is over type, version, time, pins and payload (semantics.md, section
    2), and can be computed again where `envelope` is there, the RFC 8785 text of all these (`{event_type, payload, pins, ...}`).
    """

    stream_name: str
    partition_id: str
    offset: int | str
    event_id: str
    event_type: str
    ts_utc: Time
    payload_hash: Digest
    envelope: str | None = None


class AuditProof(Model):
    """One record and its way to a signed head, for whoever has nothing but this file and a public key.

    `record`: the text whose SHA-256 the leaf names; `path`: hashes from the leaf up (RFC 6962, 2.1.1); `key_chain`: the heads
    that handed the log on from its first key to the one that signed `head`. Of a decision also the snapshot that it was made
    from, the event that it is on, and the events inside its values. Positions and hashes of events are as the log has them: the
    tree binds the decision, its position and its snapshot, not the log itself.
    """

    kind: Literal["audit_proof"] = "audit_proof"
    contract_version: Version = "v0"
    leaf: AuditLeaf
    leaf_index: Count
    path: tuple[Digest, ...] = Field(strict=False)
    head: TreeHead
    key_chain: tuple[TreeHead, ...] = Field(default=(), strict=False)
    record: str
    snapshot: ProvenSnapshot | None = None
    origin_event: ProvenEvent | None = None
    events: tuple[ProvenEvent, ...] = Field(default=(), strict=False)

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


def head_path(tree_size: int) -> str:
    """The object of a head; in the order of names as of sizes."""
    return f"{HEADS}/{tree_size:016d}.json"


def co_signature_path(tree_size: int, key_id: str) -> str:
    """The object of a co-signature."""
    return f"{CO_SIGNATURES}/{tree_size:016d}/{key_id}.json"
