"""Many events as columns: what a replay or an import hands to a log instead of one envelope after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofp_platform.vocabulary.identity import PIN_NAMES, ContextPins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.times import parse_time

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z", re.ASCII)

Int64 = NDArray[np.int64]
NOT_EMITTED = int(np.iinfo(np.int64).min)
FIRST_MOMENT = parse_time("0001-01-01T00:00:00Z")
LAST_MOMENT = parse_time("9999-12-31T23:59:59.999999Z")


@dataclass(frozen=True, slots=True, eq=False)
class EventColumns:
    """n events, not validated. Record i is the i-th of each column, and belongs to the run `pins[pins_index[i]]`.

    ts and emitted_at (NOT_EMITTED: none) are int64[n], microseconds; pins_index is int32[n]; a payload is an object or the
    JSON text of one, which costs least where it is RFC 8785 bytes already.

    Raises:
        ValueError: the columns are not of one length, not of those dtypes, or `pins_index` points outside `pins`.
    """

    event_ids: Sequence[str]
    event_types: Sequence[str]
    schema_versions: Sequence[str]
    ts: Int64
    emitted_at: Int64
    pins: Sequence[ContextPins]
    pins_index: NDArray[np.int32]
    payloads: Sequence[bytes | Mapping[str, Any]]

    def __post_init__(self) -> None:
        for name, dtype in (("ts", np.int64), ("emitted_at", np.int64), ("pins_index", np.int32)):
            column = getattr(self, name)
            if column.dtype != dtype or column.ndim != 1:
                raise ValueError(f"{name} is {column.dtype} of shape {column.shape}, not {np.dtype(dtype)} of shape (n,)")
        names = ("event_ids", "event_types", "schema_versions", "ts", "emitted_at", "pins_index", "payloads")
        lengths = {name: len(getattr(self, name)) for name in names}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        if len(self) and not 0 <= self.pins_index.min() <= self.pins_index.max() < len(self.pins):
            raise ValueError(f"pins_index points outside the {len(self.pins)} pins")

    def __len__(self) -> int:
        return len(self.event_ids)

    def part(self, start: int, stop: int) -> EventColumns:
        """The records [start, stop)."""
        cut = slice(start, stop)
        return EventColumns(
            self.event_ids[cut],
            self.event_types[cut],
            self.schema_versions[cut],
            self.ts[cut],
            self.emitted_at[cut],
            self.pins,
            self.pins_index[cut],
            self.payloads[cut],
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """The envelopes as plain dicts, as a producer would send them.

        What has no wire form stands there so that an envelope refuses it: a moment outside the years 1 to 9999 as its
        number, a payload that is no I-JSON as its bytes.
        """
        runs = [{name: value for name in PIN_NAMES if (value := getattr(pins, name)) is not None} for pins in self.pins]
        emitted_at = self.emitted_at.tolist()
        emitted_texts = _wire_times(self.emitted_at)
        for index, ts_text in enumerate(_wire_times(self.ts)):
            record: dict[str, Any] = {
                "event_id": self.event_ids[index],
                "event_type": self.event_types[index],
                "schema_version": self.schema_versions[index],
                "ts_utc": ts_text,
                **runs[self.pins_index[index]],
                "payload": _parsed(self.payloads[index]),
            }
            if emitted_at[index] != NOT_EMITTED:
                record["emitted_at_utc"] = emitted_texts[index]
            yield record


def are_moments(moments: Int64) -> NDArray[np.bool_]:
    """bool[n]: which of the microseconds lie in the years 1 to 9999, and so have a wire form."""
    return (moments >= FIRST_MOMENT) & (moments <= LAST_MOMENT)


def time_texts(moments: Int64) -> list[str]:
    """Microseconds of the years 1 to 9999 to the canonical text of `vocabulary.times.format_time`, many at once."""
    texts = np.datetime_as_string(moments.astype("datetime64[us]"), unit="us").tolist()
    return [text[:19] + "Z" if text.endswith(".000000") else text + "Z" for text in texts]


def moments_of(texts: Sequence[str | None]) -> Int64:
    """Microseconds of UTC times in the form that an append writes; NOT_EMITTED of None.

    Raises:
        ValueError: a text is no such time.
    """
    present_texts = [text for text in texts if text is not None]
    if not present_texts:
        return np.full(len(texts), NOT_EMITTED, np.int64)
    if not all(map(_TIME.fullmatch, present_texts)):
        raise ValueError("a time in another form")
    return np.array(["NaT" if text is None else text[:-1] for text in texts], "datetime64[us]").astype(np.int64)


def _wire_times(moments: Int64) -> list[str]:
    texts = time_texts(np.clip(moments, FIRST_MOMENT, LAST_MOMENT))
    for index in np.flatnonzero(~are_moments(moments)).tolist():
        texts[index] = str(moments[index])
    return texts


def _parsed(payload: bytes | Mapping[str, Any]) -> Any:
    if not isinstance(payload, bytes):
        return payload
    try:
        return read_json(payload)
    except (NotJson, NotIJson):
        return payload
