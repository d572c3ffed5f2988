"""A process that explains one served value and ends: reading the log again must not stand in the way of answers.

It reads an `ExplanationTask` (pickled) from stdin, and writes JSON: {"explanation": ...}, or {"refused": [reason, words]}.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from ofp_platform.api.served_snapshot import ServedSnapshot
from ofp_platform.log.port import LogRefused, LogUnavailable, StreamNotFound
from ofp_platform.offline.parity.explanation import ExplainedWindow, NotExplained
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.online.plane import Plane
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.vocabulary.errors import ContractError, Reason, unavailable
from ofp_platform.vocabulary.explanation import MOST_EVENTS, ExplainingEvent, ExplainingWindow, Explanation
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import format_time

NICENESS = 10


@dataclass(frozen=True)
class ExplanationTask:
    """One value to explain. `key` is TYPE:ID and `group` NAME:VERSION, where several are meant; `seconds`: it ends by then."""

    profile: Profile
    dsn: str
    snapshot_hash: str
    feature: str
    key: str | None
    group: str | None
    seconds: int


def explanation_of(plane: Plane, task: ExplanationTask) -> Explanation:
    """Rebuild the snapshot from the log, and list the events in the windows of the feature.

    Raises:
        NotExplained: there is nothing of that name to explain.
        ContractError: SNAPSHOT_CORRUPT, the log does not give the recorded hash; UNKNOWN_SNAPSHOT; STORE_DOWN.
        BuildRefused | LogRefused: it cannot be rebuilt; the text says why.
    """
    served = ServedSnapshot.load(plane, task.snapshot_hash)
    name, value = served.find(task.feature, task.key, task.group)
    rebuilt_hash, records_read = served.rebuilt()
    if rebuilt_hash != task.snapshot_hash:
        raise unavailable(
            Reason.SNAPSHOT_CORRUPT, "the log does not give what was served: run `ofp snapshot rebuild` and report it"
        )
    return Explanation(
        feature_snapshot_hash=task.snapshot_hash,
        key_type=name.key_type,
        key_id=name.key_id,
        group_name=name.group_name,
        group_version=name.group_version,
        feature=name.feature,
        as_of_time_utc=format_time(name.as_of),
        value=value,
        records_read=records_read,
        windows=tuple(_window(window) for window in served.explained(name)),
    )


def _window(window: ExplainedWindow) -> ExplainingWindow:
    selection = window.selection
    return ExplainingWindow.model_validate(
        {
            "role": window.role,
            "aggregation": selection.aggregation.value,
            "of": selection.shown_field,
            "event_types": selection.predicate.event_types,
            "where": {field: tuple(values) for field, values in selection.predicate.conditions},
            "after_utc": format_time(window.after),
            "until_utc": format_time(window.until),
            "event_count": len(window.events),
            "events": tuple(
                ExplainingEvent(
                    partition_id=event.partition_id,
                    offset=event.offset,
                    event_id=event.event_id,
                    event_type=event.event_type,
                    event_time_utc=format_time(event.ts),
                    admitted_at_utc=format_time(event.admitted_at),
                    copies=event.copies,
                )
                for event in window.events[-MOST_EVENTS:]
            ),
        }
    )


def explain(task: ExplanationTask) -> dict[str, Any]:
    """The text to write: the explanation, or why there is none."""
    try:
        with answering(), Plane.open(task.profile, task.dsn, max_connections=2, create_stream=False) as plane:
            return {"explanation": explanation_of(plane, task).model_dump(mode="json")}
    except ContractError as error:
        return {"refused": [error.reason.value, error.message]}
    except NotExplained as error:
        return {"refused": [Reason.INVALID_FIELD.value, str(error)]}
    except psycopg.errors.InsufficientPrivilege:
        words = "the database role of this service may not read the log; `ofp snapshot explain` can, with a role that may"
        return {"refused": [Reason.FORBIDDEN.value, words]}
    except (DatabaseUnavailable, LogUnavailable, ObjectStoreUnavailable):
        return {"refused": [Reason.STORE_DOWN.value, "the log, its archive or the database does not answer"]}
    except (BuildRefused, LogRefused, StreamNotFound) as error:
        return {"refused": [Reason.BASIS_LOST.value, str(error)]}


def main() -> None:
    """Explain what stdin asks for."""
    task: ExplanationTask = pickle.load(sys.stdin.buffer)
    signal.alarm(task.seconds)  # also where nobody is left who would end it
    os.nice(NICENESS)
    sys.stdout.buffer.write(orjson.dumps(explain(task)))


if __name__ == "__main__":
    main()
