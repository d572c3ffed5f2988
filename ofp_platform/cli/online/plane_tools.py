"""The tools of the MCP server: questions that change nothing, asked of the service with the caller's key: its scopes hold.

No tool reads a file or a database of this machine, and none says more than the service answers to that key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofp_platform.client import OfpClient
from ofp_platform.registry.calendar_windows import calendar_window, window_after
from ofp_platform.registry.catalogue import definition
from ofp_platform.vocabulary.catalogue import CatalogueFeature, CatalogueOperand
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.serving import SnapshotRecord
from ofp_platform.vocabulary.times import format_time, parse_duration, parse_time

Json = dict[str, Any]


class PlaneTools:
    """Read-only tools over a client; each returns JSON, and raises what the client raises."""

    def __init__(self, client: OfpClient) -> None:
        self._client = client

    @property
    def tools(self) -> list[Callable[..., Json]]:
        """The tools; the docstring of each is what a model reads of it."""
        return [
            self.health,
            self.catalogue,
            self.show_group,
            self.show_snapshot,
            self.explain_value,
            self.list_events_behind,
            self.show_decision,
            self.compare_packs,
            self.estimate_build,
            self.show_build,
        ]

    def health(self) -> Json:
        """The state of the plane now: GREEN, AMBER or RED with the reasons, lag by partition, failures by reason."""
        return self._client.health().model_dump(mode="json", exclude_none=True)

    def catalogue(self, search: str = "") -> Json:
        """The feature groups that are served: names, key types, owners, descriptions, names of features, how many read each.

        search: only groups with this text in a name or description. show_group has the definitions.
        """
        catalogue = self._client.catalogue()
        groups = []
        for group in catalogue.groups:
            names = [feature.name for feature in group.features]
            if any(search.lower() in text.lower() for text in (group.group_name, group.description, *names)):
                groups.append(
                    {
                        "group": f"{group.group_name}:{group.group_version}",
                        "key_type": group.key_type.value,
                        "owner": group.owner,
                        "description": group.description,
                        "features": names,
                        "readers": len(group.read_by) if catalogue.readers_known else None,
                    }
                )
        return {"pack": catalogue.feature_definition_set.model_dump(mode="json"), "groups": groups}

    def show_group(self, group: str) -> Json:
        """One feature group (NAME:VERSION): each feature's aggregation, events, field, conditions, window and type; its words;
        and the datasets, models and decision rules that read the group."""
        for candidate in self._client.catalogue().groups:
            if f"{candidate.group_name}:{candidate.group_version}" == group:
                return candidate.model_dump(mode="json", exclude_none=True)
        raise ValueError("no such group is served; the tool catalogue lists them")

    def show_snapshot(self, snapshot_hash: str) -> Json:
        """A served snapshot by its hash (64 hex digits): keys, values, as-of, the log positions it was made of, warnings."""
        return self._client.get_snapshot(snapshot_hash).model_dump(mode="json")

    def explain_value(self, snapshot_hash: str, feature: str, key: str = "", group: str = "") -> Json:
        """The meaning of a served value: its definition, the window of time it was computed over, the positions that were known,
        how fresh it was, and warnings about it. key (TYPE:ID) and group (NAME:VERSION) where the name alone is not enough.
        """
        record = self._client.get_snapshot(snapshot_hash)
        (of_key, of_group), value = _one_value(record, feature, key, group)
        defined_by = self._definition(of_group, feature)
        as_of = parse_time(record.hashed["as_of_time_utc"])
        name, _, version = of_group.partition(":")
        place = {"key_type": of_key.partition(":")[0], "key_id": of_key.partition(":")[2]}
        place |= {"group_name": name, "group_version": version}
        about = [part for part in record.hashed["freshness"] if place.items() <= part.items()]
        warnings = [
            part["code"]
            for part in record.hashed["warnings"]
            if place.items() <= part.items() and part.get("feature") in (None, feature)
        ]
        explanation: Json = {
            "value": value,
            "key": of_key,
            "group": of_group,
            "as_of_time_utc": record.hashed["as_of_time_utc"],
            "input_basis": record.hashed["input_basis"],
            "freshness": about[0] if about else None,
            "warnings": warnings,
        }
        if defined_by is None:
            return {**explanation, "definition": None, "note": "this version of the group is not served any more"}
        operands = [part for part in (defined_by.definition, defined_by.denominator) if part is not None]
        return {
            **explanation,
            "definition": definition(defined_by),
            "type": defined_by.type,
            "windows": [_window(operand, as_of) for operand in operands],
        }

    def list_events_behind(self, snapshot_hash: str, feature: str, key: str = "", group: str = "") -> Json:
        """The events behind a served value: each window with its bounds, and each event in it with its id, its times and the
        position of its record in the log; no payloads. The value is computed again from the log first, and has to be the same.
        key (TYPE:ID) and group (NAME:VERSION) where the name alone is not enough. Takes seconds.
        """
        return self._client.explain(snapshot_hash, feature, key=key or None, group=group or None).model_dump(mode="json")

    def show_decision(self, decision_id: str) -> Json:
        """A recorded decision by its id: event, score, outcome, the rule by its digest, when, and the hash of the snapshot it
        was made on (show_snapshot has the values, list_events_behind the events behind each).
        """
        return self._client.decision(decision_id).wire()

    def _definition(self, group: str, feature: str) -> CatalogueFeature | None:
        for candidate in self._client.catalogue().groups:
            if f"{candidate.group_name}:{candidate.group_version}" == group:
                return next((entry for entry in candidate.features if entry.name == feature), None)
        return None

    def compare_packs(self, old: str, new: str) -> Json:
        """Compare two feature packs, as YAML texts or names of shipped packs (as card_payments), by what they mean: lines
        by + - ~ and ! (refused: a group changed under a version that it had), and whether the new one can be published."""
        from ofp_platform.registry.diff import diff_packs
        from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, shipped_pack

        old_pack, new_pack = (
            shipped_pack(text) if text in SHIPPED_PACKS else load_pack(text, side) for side, text in (("old", old), ("new", new))
        )
        difference = diff_packs(old_pack, new_pack)
        return {"lines": list(difference.lines), "publishable": difference.publishable}

    def estimate_build(self, intent: Json) -> Json:
        """Check a build intent without submitting it: whether it contradicts itself, the key of its run, how many rows it has at
        least, and the run itself where it was submitted before. What has to be looked up in the log only the builder checks."""
        from ofp_platform.offline.requests.intent_file import parse_intent
        from ofp_platform.offline.requests.intent_size import least_rows
        from ofp_platform.vocabulary.offline.build_intent import request_id

        checked_intent = parse_intent(intent)
        run_key = request_id(checked_intent)
        rows, words = least_rows(checked_intent)
        try:
            run: Json | None = self.show_build(run_key)
        except ContractError as error:
            if error.reason.value != "UNKNOWN_BUILD_RUN":
                raise
            run = None
        return {
            "run_key": run_key,
            "rows_at_least": rows or None,
            "counted_as": words or "known when the log is read",
            "run": run,
        }

    def show_build(self, run_key: str) -> Json:
        """A run of a build by its key (64 hex digits): its state, the plan, why it was refused, or its outcome."""
        return self._client.build_run(run_key).wire()


def _one_value(record: SnapshotRecord, feature: str, key: str, group: str) -> tuple[tuple[str, str], Any]:
    """The place of a feature in a snapshot, key and group, and its value."""
    values = {
        (f"{of_key['key_type']}:{of_key['key_id']}", f"{of_group['group_name']}:{of_group['group_version']}"): of_group[
            "features"
        ]
        for of_key in record.hashed["values"]
        for of_group in of_key["by_group"]
    }
    places = [place for place, features in values.items() if feature in features]
    fits = [place for place in places if key in ("", place[0]) and group in ("", place[1])]
    if len(fits) != 1:
        where = "; ".join(f"key {of_key}, group {of_group}" for of_key, of_group in places)
        raise ValueError(f"{'several values are' if fits else 'no value is'} meant; it is there for: {where or 'nothing'}")
    return fits[0], values[fits[0]][feature]


def _window(operand: CatalogueOperand, as_of: int) -> Json:
    """The bounds of a window: events after `after`, up to and with `until`."""
    until = as_of - parse_duration(operand.delay)
    after = None
    if operand.window is not None:
        calendar = calendar_window(operand.window)
        after = format_time(window_after(calendar, 0 if calendar else parse_duration(operand.window), until))
    return {"events": list(operand.events), "where": dict(operand.where), "after": after, "until": format_time(until)}
