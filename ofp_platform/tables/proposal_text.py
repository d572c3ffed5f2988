"""The files of a proposal: pack.yaml, import.yaml, decision.yaml and profile.yaml, with the reason of each choice beside it."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.tables.cell_values import TimeFormat
from ofp_platform.tables.proposal import Proposal
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.times import parse_duration

_COUNTS = ("1h", "24h", "7d")
_HELD = "30d"
_VELOCITY_POINTS, _REVIEW_FROM, _DECLINE_FROM = 30, 30, 60


@dataclass(frozen=True)
class LabelFile:
    """The part that each column of a file of labels is given. `value_column`: None, where each row says yes."""

    event_id: str
    observed: str
    time_format: TimeFormat
    names_zone: bool
    value_column: str | None
    source: str


def yaml_text(text: str) -> str:
    """A text as YAML that can be nothing else."""
    text_with_escapes = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text_with_escapes}"'


def amount_field(proposal: Proposal) -> str | None:
    """The payload field of the amount: with digits behind the point it is in minor units, and so called."""
    if proposal.amount is None:
        return None
    name = proposal.field_names[proposal.amount]
    return f"{name}_minor" if proposal.digits else name


def pack_text(proposal: Proposal, pack_id: str) -> str:
    """pack.yaml: routing, and for each key type a group of velocities, amounts and counts of what it meets."""
    fields = [(name, "boolean") for name in _fields(proposal, proposal.booleans)]
    fields += [(name, "integer") for name in _fields(proposal, proposal.integers)]
    fields += [(name, "string") for name in _fields(proposal, proposal.categories)]
    fields += [(proposal.field_names[column], "string") for column in proposal.keys.values()]
    amount = amount_field(proposal)
    if amount is not None:
        fields.insert(0, (amount, "integer"))
    lines = [
        "# Proposed from a file of events, to be changed: `ofp registry check FILE` says what is wrong with it (docs/packs.md).",
        f"pack_id: {pack_id}",
        "revision: 1",
        "",
        "events:",
        f"  {proposal.event_type}:",
        "    # key type: payload field. A feature is of one key: everything that one account, card, ... did",
        f"    keys: {{{', '.join(f'{kind}: {proposal.field_names[column]}' for kind, column in proposal.keys.items())}}}",
        "    # what features may read; import.yaml says which column of the file each comes from",
        f"    fields: {{{', '.join(f'{name}: {kind}' for name, kind in fields)}}}",
        "",
        "groups:",
    ]
    for kind in proposal.keys:
        lines += _group(proposal, kind, amount)
    return "\n".join(lines) + "\n"


def _group(proposal: Proposal, kind: str, amount: str | None) -> list[str]:
    events = f"events: [{proposal.event_type}]"
    lines = [
        f"  - name: {kind}_activity",
        "    version: v1",
        f"    key_type: {kind}",
        f"    ttl_seconds: {_seconds(_HELD)}",
        "    features:",
    ]
    lines += [f"      - {{name: count_{window}, aggregation: count, {events}, window: {window}}}" for window in _COUNTS]
    lines.append(f"      - {{name: seconds_since_last_{_HELD}, aggregation: seconds_since_last, {events}, window: {_HELD}}}")
    if amount is not None:
        of_amount = f"{events}, value: {amount}"
        lines += [
            f"      - {{name: sum_{amount}_24h, aggregation: sum, {of_amount}, window: 24h}}",
            f"      - {{name: mean_{amount}_{_HELD}, aggregation: mean, {of_amount}, window: {_HELD}, scale: 2}}",
            f"      - {{name: max_{amount}_{_HELD}, aggregation: max, {of_amount}, window: {_HELD}}}",
        ]
    lines += [
        f"      - {{name: distinct_{other}_7d, aggregation: distinct_count, {events}, value: {proposal.field_names[column]},"
        " window: 7d}"
        for other, column in proposal.keys.items()
        if other != kind
    ]
    for name in _fields(proposal, proposal.booleans):
        lines += [
            f"      - name: {name}_share_7d",
            "        aggregation: ratio",
            "        window: 7d",
            f"        numerator: {{aggregation: count, {events}, where: {{{name}: true}}}}",
            f"        denominator: {{aggregation: count, {events}}}",
        ]
    return [*lines, ""]


def import_text(proposal: Proposal, labels: LabelFile | None, label_delay: str) -> str:
    """import.yaml: how rows become events, and rows of labels assertions."""
    lines = [
        "# How the rows of your files become events (`ofp log import FILE`) and labels (`ofp labels append FILE`).",
        "events:",
        f"  event_type: {proposal.event_type}",
        "  schema_version: v1",
    ]
    if proposal.event_id is None:
        lines.append(
            "  # no column has an id of its own for each row: the id is a digest of the row, and two equal rows are one event"
        )
    else:
        lines.append(f"  event_id: {yaml_text(proposal.event_id)}")
    lines += ["  time:", *_moment(proposal.time, proposal.time_format, proposal.names_zone, "    ")]
    lines += [
        "  # history has no admission: each event counts as admitted so long after its time, by a simulated clock",
        "  admitted_after: 0s",
    ]
    lines.append("  fields:")
    for column in proposal.keys.values():
        lines.append(_field(proposal.field_names[column], column, "key"))
    if proposal.amount is not None:
        name = amount_field(proposal)
        digits = f", digits: {proposal.digits}" if proposal.digits else ""
        lines.append(f"    {name}: {{column: {yaml_text(proposal.amount)}, type: amount{digits}}}")
    for kind, columns in (("boolean", proposal.booleans), ("integer", proposal.integers), ("text", proposal.categories)):
        lines += [_field(proposal.field_names[column], column, kind) for column in columns]
    lines += [f"  # left out: {yaml_text(column)}: {reason}" for column, reason in proposal.left_out.items()]
    if labels is not None:
        lines += [
            "",
            "labels:",
            f"  event_type: {proposal.event_type}   # of the events that they are about",
            f"  event_id: {yaml_text(labels.event_id)}",
            "  label_type: fraud",
            "  value: 1   # of every row" if labels.value_column is None else f"  value_column: {yaml_text(labels.value_column)}",
            "  # when it became known: nothing is learned from a label before that",
            "  observed:",
            *_moment(labels.observed, labels.time_format, labels.names_zone, "    "),
            "  # history counts as admitted when it was observed, by a simulated clock; `now` for what comes from today on",
            "  admitted: observed",
            f"  source: history.{labels.source}",
        ]
    elif proposal.label is not None and proposal.event_id is not None:
        lines += [
            "",
            "# The file of events says itself which were fraud; it does not say since when that was known. Say how long it took:",
            "labels:",
            f"  event_type: {proposal.event_type}",
            f"  event_id: {yaml_text(proposal.event_id)}",
            "  label_type: fraud",
            f"  value_column: {yaml_text(proposal.label)}",
            "  observed:",
            *_moment(proposal.time, proposal.time_format, proposal.names_zone, "    "),
            f"  observed_after: {label_delay}   # assumed: change it to what is true for you",
            "  admitted: observed   # history, by a simulated clock; `now` for what comes from today on",
            "  source: history.file_of_events",
        ]
    return "\n".join(lines) + "\n"


def decision_text(proposal: Proposal) -> str:
    """decision.yaml: the question and the rule of `ofp decide`."""
    groups = ", ".join(f"{{group_name: {kind}_activity, group_version: v1}}" for kind in proposal.keys)
    kind = next(iter(proposal.keys))
    condition = f"{{group_name: {kind}_activity, group_version: v1, feature: count_1h, at_least: 5, points: {_VELOCITY_POINTS}}}"
    return "\n".join(
        [
            "# What `ofp decide` asks for and how it decides. The rule is a beginning: many events of one key in an hour.",
            f"event_type: {proposal.event_type}",
            "# key type: payload field with its id",
            f"key_fields: {{{', '.join(f'{key}: {proposal.field_names[column]}' for key, column in proposal.keys.items())}}}",
            f"groups: [{groups}]",
            "rule:",
            f"  rule_name: {kind}_velocity",
            "  rule_version: v1",
            "  # points for each feature that reaches its bound; the outcome by their sum",
            "  conditions:",
            f"    - {condition}",
            f"  review_from: {_REVIEW_FROM}",
            f"  decline_from: {_DECLINE_FROM}",
            "",
        ]
    )


def policies_text(name: str) -> str:
    """build_policies.yaml: an example, all of it a comment."""
    return "\n".join(
        [
            "# Build policies of your own: what a training set must hold to. Without any, `fraud_training` is used, which ships.",
            "# Name one with `ofp intent new NAME --policy ID`. A change gets a revision of its own: requests name the content.",
            "#",
            "# policies:",
            f"#   - policy_id: {name}_training",
            "#     revision: 1",
            '#     min_label_coverage: "0.95"     # of the rows that are mature, so many have a label',
            "#     immature_rows: drop            # or keep them, with their maturity in a column",
            "#     unlabelled_means: 0            # a mature row that nobody asserted anything of; leave it out for no value",
            "#     require_parity: true           # a decision that is not what the log gives: no dataset",
            "#     min_parity_anchors: 100        # so many recorded decisions are compared, at least",
            '#     max_uncheckable_share: "0.01"  # of them, so many may be beyond comparing',
            '#     max_failed_share: "0.001"      # of the records, so many may fail for the groups of the dataset',
            "#     max_values_out_of_range: 0     # values too large to be served, null in the rows",
            "#     max_attempts: 3",
            "",
        ]
    )


def profile_text(proposal: Proposal, name: str, file_digest: str) -> str:
    """profile.yaml: one deployment, whose run is named by the digest of the file."""
    stream = name.replace("_", "-")
    partition_kind, partition_column = next(iter(proposal.keys.items()))
    return "\n".join(
        [
            "# One deployment: a stream, a run, a pack. Every command uses it while it lies in the home folder.",
            f"profile_name: {name}",
            f"stream_name: {stream}",
            "log_kind: postgres",
            "partitions: 4",
            f"# events of one {partition_kind} stand in one partition, in their order",
            f"partition_key: payload.{proposal.field_names[partition_column]}",
            "# the run: whose events these are. Another history is another run",
            "context_pins:",
            f"  scenario_id: {stream}",
            "  run_id: history-1",
            f"  manifest_fingerprint: {yaml_text(file_digest)}   # SHA-256 of the file of events",
            f"  parameter_hash: {yaml_text(digest_of({'imported': name}))}",
            "pack: pack.yaml   # beside this file",
            "clock_skew: 5m",
            "# how late an event may come and still count; and how far behind the newest event a question may lie",
            "allowed_lateness: 7d",
            "# object_store_url is not set: a folder `objects` in the home folder",
            "",
        ]
    )


def _fields(proposal: Proposal, columns: tuple[str, ...]) -> list[str]:
    return [proposal.field_names[column] for column in columns]


def _field(name: str, column: str, kind: str) -> str:
    return f"    {name}: {{column: {yaml_text(column)}, type: {kind}}}"


def _moment(column: str, time_format: TimeFormat, names_zone: bool, indent: str) -> list[str]:
    lines = [f"{indent}column: {yaml_text(column)}"]
    if time_format is not TimeFormat.ISO:
        lines.append(f"{indent}format: {time_format}")
    if not names_zone:
        lines.append(f'{indent}zone: UTC   # the times name none: assumed; an offset is written as in "+02:00"')
    return lines


def _seconds(duration: str) -> int:
    return parse_duration(duration) // 1_000_000
