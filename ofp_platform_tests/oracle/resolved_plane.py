"""A small plane whose groups resolve identities, with a context stream of its own, beside the brute force."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import count
from typing import Any

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.serving.resolved_question import Graph
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, Key, SmallPlane
from ofp_platform_tests.oracle.strategies import PACK, PINS, SECOND, SKEW, START

AS_SENT = ("ratios", "switches")
"""Groups that stay as they were: beside those that resolve, of the same key type."""
_streams = count()


def resolving(text: str = PACK) -> str:
    """The pack with all its groups resolving identities, but a few."""
    lines: list[str] = []
    name = ""
    for line in text.split("\n"):
        if line.startswith("  - name: "):
            name = line.removeprefix("  - name: ")
        lines.append(line)
        if line.startswith("    key_type: ") and name not in AS_SENT:
            lines.append("    identity: resolved")
    return "\n".join(lines).replace("pack_id: oracle", "pack_id: resolving")


@cache
def resolving_registry() -> CompiledRegistry:
    """The same, compiled."""
    return compile_pack(load_pack(resolving()))


class ResolvedPlane:
    """See the module. `links` are those that the context stream has."""

    def __init__(self, pool: Pool, *, most_members: int = 1_000, **settings: Any) -> None:
        name = f"resolved-{next(_streams)}"
        self.pool = pool
        self.context_log = PostgresLog.create(pool, f"{name}-context", 2, "event_id")
        self.graph = Graph(self.context_log.stream_name, most_members)
        self.plane = SmallPlane(pool, name, registry=resolving_registry(), graph=self.graph, **settings)
        self.links: list[graph.SaidLink] = []

    def link(self, links: Iterable[graph.SaidLink]) -> None:
        """Append these links, twice each, and fold them. Their identities are not those of the events: no two tie."""
        envelopes = []
        for link in links:
            self.links.append(link)
            payload = {
                "key_type": link.key_type,
                "member": link.member,
                "canonical": link.canonical,
                "effective_time_utc": fold.time_text(link.effective),
            }
            event_type = "identity_link" if link.is_link else "identity_unlink"
            head = {"event_id": f"link-{len(self.links)}", "event_type": event_type, "schema_version": "1"}
            envelopes.append({**head, "ts_utc": fold.time_text(START), **PINS, "payload": payload})
        receipt = self.context_log.append([*envelopes, *envelopes], lambda _: START + SECOND)
        assert not receipt.refusals
        while self.projector().apply_available(3) is not None:
            pass

    def projector(self) -> GraphProjector:
        """Another projector of the graph."""
        return GraphProjector(self.pool, self.context_log, self.plane.pins, SKEW)

    def context(self) -> ContextReplay:
        """The context stream, folded anew."""
        return ContextReplay.read(self.context_log, self.plane.pins, SKEW)

    def check(self, keys: Sequence[Key], groups: Sequence[tuple[str, str]], as_of: int, answer: Answer | None = None) -> Answer:
        """Ask (or take an answer), and hold it against the brute force to the byte."""
        plane = self.plane
        basis = plane.row().basis
        resolved_types = {
            g["key_type"] for g in plane.content["groups"] if (g["name"], g["version"]) in groups and "identity" in g
        }
        entities = {}
        for key in keys:
            if key[0] in resolved_types:
                _, members, conflicts = graph.entity(self.links, *key, as_of)
                told = [{"kind": kind, "key_ids": list(ids)} for kind, ids in sorted(conflicts)]
                entities[key] = (members, told)
        expected = fold.snapshot(
            plane.known(basis), plane.content, keys, groups, as_of, allowed_lateness=plane.allowed_lateness, entities=entities
        )
        answer = answer or plane.reader.answer(plane.request(keys, groups, as_of))
        body = json.loads(answer.body)
        provenance = body["provenance"]
        assert body["snapshot"]["by_key"] == expected.by_key
        assert provenance["freshness"] == expected.freshness
        assert provenance["warnings"] == expected.warnings
        version = graph_version_of(self.projector().graph().basis).model_dump(mode="json") if resolved_types else None
        assert provenance["graph_version"] == version
        hashed = {
            "contract_version": "ofp_public_contracts_v0",
            "context_pins": PINS,
            "as_of_time_utc": fold.time_text(as_of),
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in sorted(keys)],
            "feature_groups": [{"group_name": name, "group_version": number} for name, number in sorted(groups)],
            "registry_digest": plane.registry.digest,
            "run_config_digest": RUN_CONFIG,
            "values": expected.by_key,
            "freshness": expected.freshness,
            "warnings": expected.warnings,
            "input_basis": basis.model_dump(mode="json"),
            **({} if version is None else {"graph_version": version}),
        }
        assert answer.hashed == jcs_bytes(hashed)
        assert answer.hash == hashlib.sha256(answer.hashed).hexdigest() == provenance["feature_snapshot_hash"]
        assert answer.body == jcs_bytes(body)
        GetFeaturesResponse.model_validate_json(answer.body)
        return answer
