"""Records that were set aside, kept as they were sent in write-once objects that operators read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from ofp_platform.ingress.gate import Sent
from ofp_platform.log.port import RecordRefusal
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.admission_receipt import QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins, pins_digest


def keep_in_quarantine(
    objects: ObjectStore, pins: ContextPins, records: Sequence[tuple[Sent, QuarantineReason | None]]
) -> list[str | None]:
    """Keep records as they were sent, in objects named by their content; the path of each, with its place behind `#`.

    One that holds a raw identifier is kept nowhere, and neither is what was no JSON object: who read it told why.
    """
    kept_lines = [
        (place, json.dumps(record, default=str).encode())
        for place, (record, reason) in enumerate(records)
        if not isinstance(record, RecordRefusal) and reason is not QuarantineReason.RAW_IDENTIFIER
    ]
    paths: list[str | None] = [None] * len(records)
    if kept_lines:
        content = b"\n".join(text for _, text in kept_lines) + b"\n"
        path = f"quarantine/{pins_digest(pins)[:16]}/{sha256(content).hexdigest()}.jsonl"
        objects.put_same(path, content)
        for line, (place, _) in enumerate(kept_lines):
            paths[place] = f"{path}#{line}"
    return paths
