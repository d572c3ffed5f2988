"""The profile: everything an operator declares about one deployment of the plane. A YAML file, validated, no secrets.

Its policy (all that shapes decisions and bounds) has a revision and a digest, and tiers that overlay it. Its wiring (where log
and objects are) comes from the environment; only the file of a machine of one's own may name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from ofp_platform.vocabulary.canonical import digest_of, jcs_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins, KeyType
from ofp_platform.vocabulary.model import Day, Digest, Model, Name
from ofp_platform.vocabulary.position import StreamName
from ofp_platform.vocabulary.posture_policy import PosturePolicy
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.retraining_policy import RetrainingPolicy
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_duration
from ofp_platform.vocabulary.yaml_file import YamlFault, fault_words, read_yaml

_HOUR = 3600 * MICROS_PER_SECOND


def _duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_duration), Field(description="as in 5m, 24h, 30d")]


class ProfileError(Exception):
    """The profile file cannot be used; the text says what is wrong and where."""


class Tier(StrEnum):
    """Where a deployment stands; promotion is the next one, of the same file."""

    LOCAL = "local"
    LOCAL_PARITY = "local_parity"
    PRODUCTION = "production"


WIRING = frozenset({"kinesis_endpoint_url", "object_store_url", "object_store_endpoint_url"})
"""Fields that say where something is, and nothing about what is done: the environment has a variable for each."""
_NO_POLICY = WIRING | {
    "log_kind",
    "profile_name",
    "policy_revision",
    "tiers",
    "stream_name",
    "context_stream",
    "control_stream",
    "decisions_stream",
    "context_pins",
}
"""Beside wiring: which service the log is, names, and the run. None of them rules anything; records have them beside it."""
_NOT_OF_A_TIER = WIRING | {"profile_name", "policy_revision", "tiers"}


class Limits(Model):
    """Bounds of one request."""

    max_keys: int = Field(default=100, ge=1, description="keys of one request")
    max_groups: int = Field(default=32, ge=1, description="groups of one request")
    max_body_bytes: int = Field(default=65_536, ge=1024, description="bytes of its body")
    max_request_context_fields: int = Field(default=32, ge=0, description="fields of its request_context")
    max_members: int = Field(default=1_000, ge=1, description="members of an entity, where a group resolves identities")
    at_least_basis_wait_ms: int = Field(
        default=500, ge=0, description="how long it waits for the records of at_least_basis, milliseconds"
    )


class HttpLimits(Model):
    """Bounds of the HTTP service. Those of connections are of one worker."""

    max_connections: int = Field(default=8_192, ge=16, description="open at once; above them 503")
    max_connections_of_a_peer: int = Field(
        default=4_096, ge=1, description="of one address; of a network of 64 bits for IPv6. Behind a proxy that is the proxy"
    )
    reserved_connections: int = Field(default=32, ge=1, description="more of them, for health and metrics alone")
    max_requests_under_way: int = Field(default=512, ge=1, description="requests to get_features that wait for the store")
    head_seconds: int = Field(default=5, ge=1, description="for the head of a request, and between two requests")
    body_seconds: int = Field(default=5, ge=1, description="for the body of a request")
    unread_seconds: int = Field(default=20, ge=1, description="for an answer that the client does not read")
    handshake_seconds: int = Field(default=10, ge=1, description="for the TLS handshake of a connection")
    max_handshakes: int = Field(
        default=512, ge=16, description="TLS handshakes under way; above them the oldest of the address with most of them ends"
    )
    client_certificates: Literal["lock", "principals"] = Field(
        default="lock",
        description="what a client certificate (`ofp serve --tls-client-ca`) is: a lock beside the key, or who asks",
    )
    unread_bytes: int = Field(
        default=65_536, ge=1_024, description="answers that the client has not read; behind them nothing more is answered to it"
    )


class BuildLimits(Model):
    """How large a build may be, and how much one principal may ask for: whoever `submitted_by` names, or nobody."""

    max_records: int = Field(default=1_000_000_000, ge=1, description="records that one build replays")
    max_rows: int = Field(default=50_000_000, ge=1, description="rows of one build")
    max_bytes: int = Field(default=64 << 30, ge=1, description="bytes of scratch and files that one build holds at once")
    max_open_intents: int = Field(default=50, ge=1, description="of one principal: waiting, running or to be published")
    max_rows_a_day: int = Field(default=200_000_000, ge=1, description="of one principal, in the last 24 hours")
    max_bytes_a_day: int = Field(default=256 << 30, ge=1, description="of one principal, in the last 24 hours, estimated")


class Thresholds(Model):
    """When the posture leaves GREEN, and when serving refuses."""

    lag_records_amber: int = Field(default=5_000, ge=0, description="records that wait in the log: AMBER from here")
    lag_records_red: int = Field(default=100_000, ge=0, description="the same: RED")
    stall_seconds_amber: int = Field(default=10, ge=1, description="since the last commit, while records wait: AMBER")
    stall_seconds_red: int = Field(default=60, ge=1, description="the same: RED")
    observed_seconds_red: int = Field(default=15, ge=5, description="how old the last look at store and log may be")
    archive_lag_amber: float = Field(default=0.5, gt=0, le=1, description="part of the log's retention that is not archived")
    archive_lag_red: float = Field(default=0.75, gt=0, le=1, description="the same: RED")
    refuse_when_red: bool = Field(default=False, description="whether get_features is refused while the posture is RED")


class Retention(Model):
    """How long a store keeps what nothing published needs; everything else is kept for good."""

    retired_projections: Duration = Field(default="30d", description="state of projections that are live no more")
    dagster_events: Duration = Field(default="90d", description="event logs of Dagster's runs")
    accesses: Duration = Field(default="400d", description="files of accesses to the HTTP service, from the end of their day on")
    trim_log: bool = Field(
        default=False, description="whether records that are archived, verified and applied leave the log (PostgreSQL only)"
    )

    @property
    def retired_projections_us(self) -> int:
        """In microseconds."""
        return parse_duration(self.retired_projections)

    @property
    def dagster_events_us(self) -> int:
        """In microseconds."""
        return parse_duration(self.dagster_events)

    @property
    def accesses_us(self) -> int:
        """In microseconds."""
        return parse_duration(self.accesses)


class BundlePolicy(Model):
    """Who may put a bundle in force."""

    four_eyes: bool = Field(default=True, description="whether who approves a bundle is another than who published it")


class DecidedAction(Model):
    """An action that a decision wants where it comes out so: on the event's entity of a type, or at a webhook."""

    outcome: Literal["review", "decline"] = Field(description="of the decisions that want it")
    action_type: Name = Field(description="as the action policy allows it to the actor `decider`")
    key_type: Annotated[KeyType, Field(strict=False)] | None = Field(default=None, description="the entity it is done on")
    webhook: Name | None = Field(default=None, description="or the webhook of the action policy that is told")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.key_type is None) == (self.webhook is None):
            raise ValueError("an action has a key_type or a webhook")
        return self


class DecidingPolicy(Model):
    """Which events the plane itself decides on, how long it waits for their features, and which actions decisions want."""

    event_type: EventType = Field(description="one decision for each event of it")
    deadline_ms: int = Field(
        default=250, ge=1, le=60_000, description="for the features of an event; behind it, a lower mode decides"
    )
    actions: tuple[DecidedAction, ...] = Field(default=(), strict=False, description="that decisions want; none: none")


class ClassMapRef(Model):
    """A class map in a file, by its digest (`ofp ingress class-map FILE` prints it): a file that was changed is refused."""

    file: str = Field(min_length=1, description="path of the file, from the folder of the profile")
    digest: Digest = Field(description="SHA-256 over the RFC 8785 bytes of what it says")


class Profile(Model):
    """One deployment: a stream, a run, a pack and the policies around them."""

    profile_name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="name of the deployment, for people")
    policy_revision: int = Field(default=1, ge=1, description="raised by whoever changes the policy; it begins policy_rev")
    tiers: dict[Annotated[Tier, Field(strict=False)], dict[str, JsonValue]] = Field(
        default={}, description="what is otherwise in a tier: fields of the policy, laid over those above"
    )
    stream_name: StreamName = Field(description="the stream of events; it is part of every position")
    context_stream: StreamName | None = Field(
        default=None, description="the stream of identity links, of the same kind of log; none: groups cannot resolve identities"
    )
    control_stream: StreamName | None = Field(
        default=None,
        description="the stream of what control says of runs, in PostgreSQL always; none: the run of the profile needs no READY",
    )
    decisions_stream: StreamName | None = Field(
        default=None,
        description="the stream of decisions, of intents of actions and their outcomes, in PostgreSQL always; none: the plane"
        " itself decides nothing",
    )
    log_kind: Literal["postgres", "kinesis", "kafka"] = Field(default="postgres", description="the service that holds the log")
    partitions: int = Field(default=4, ge=1, le=1024, description="of a stream that the plane makes; of a Kafka topic always")
    class_map: ClassMapRef | None = Field(
        default=None,
        description="the event types that ingress takes, with the JSON Schemas of their payloads; none: what the pack implies",
    )
    partition_key: str = Field(
        pattern=r"^payload\.[A-Za-z0-9_.]+$", description="payload field by whose value producers choose the partition"
    )
    kinesis_endpoint_url: str | None = Field(default=None, description="a Kinesis that is not Amazon's")
    kinesis_retention: Duration | None = Field(
        default=None, description="the least that a Kinesis stream keeps a record for, 24h to 365d; raised, never lowered"
    )
    kafka_retention: Duration = Field(default="7d", description="how long a Kafka topic that the plane makes keeps a record")
    context_pins: ContextPins = Field(description="the run: events of another one count for nothing")
    pack: str = Field(description="the name of a shipped pack, or a path ending in .yaml, from the folder of the profile")
    clock_skew: Duration = Field(
        default="5m", description="how far an event's time may lie past its admission; part of every value"
    )
    allowed_lateness: Duration = Field(
        default="1d", description="how much longer than the longest window state is kept; part of every value"
    )
    range_size: int = Field(default=25_000, ge=1, description="records of one offset range, the unit of backfill")
    batch_records: int = Field(default=250_000, ge=1, description="the most records that one commit applies")
    known_events_recent: int = Field(
        default=524_288, ge=1, description="newest events whose identities a projector keeps in memory; older ones are looked up"
    )
    known_events_filter_mb: int = Field(
        default=512, ge=0, description="memory for filters, two bytes an older event; without one, each event is looked up"
    )
    served_log_mb: int = Field(
        default=64,
        ge=1,
        description="memory of a worker for what it served and has not stored; when it is full, nothing is served",
    )
    object_store_url: str = Field(
        default="file://.ofp/objects", pattern=r"^(file|s3)://", description="where archive, datasets and snapshots stand"
    )
    object_store_endpoint_url: str | None = Field(default=None, description="an S3 that is not Amazon's")
    first_day: Day | None = Field(
        default=None, description="of events and decisions, as Dagster lists hours and days; none: January of the year before"
    )
    last_day: Day | None = Field(default=None, description="the same, of a history that is over; none: it goes on")
    limits: Limits = Limits()
    http: HttpLimits = HttpLimits()
    builds: BuildLimits = BuildLimits()
    thresholds: Thresholds = Thresholds()
    retention: Retention = Retention()
    bundles: BundlePolicy | None = Field(
        default=None, description="who may put a bundle in force; none: who approves one is another than who published it"
    )
    deciding: DecidingPolicy | None = Field(
        default=None, description="what the plane itself decides on (`ofp decider run`), with a decisions_stream; none: nothing"
    )
    posture: PosturePolicy | None = Field(
        default=None, description="when who decides leaves NORMAL, by which signals; none: operators alone hold and release modes"
    )

    retraining: RetrainingPolicy | None = Field(
        default=None, description="what is trained again, and what it must show to be published; none: nothing is"
    )

    @model_validator(mode="after")
    def _tiers_of_policy(self) -> Self:
        for tier, overlay in self.tiers.items():
            for name in overlay:
                if name in _NOT_OF_A_TIER or name not in Profile.model_fields:
                    raise ValueError(f"tiers.{tier}.{name}: is no field that a tier may change")
        return self

    @model_validator(mode="after")
    def _streams_apart(self) -> Self:
        if self.context_stream == self.stream_name:
            raise ValueError("context_stream: is the stream of events; links stand in one of their own")
        if self.control_stream is not None and self.control_stream in (self.stream_name, self.context_stream):
            raise ValueError("control_stream: is a stream of events or links; control stands in one of its own")
        others = (self.stream_name, self.context_stream, self.control_stream)
        if self.decisions_stream is not None and self.decisions_stream in others:
            raise ValueError("decisions_stream: is another stream of the profile; decisions stand in one of their own")
        if self.decisions_stream is not None and self.control_stream is None:
            raise ValueError("decisions_stream: needs a control_stream: posture and bundles, which decide, stand there")
        if self.deciding is not None and self.decisions_stream is None:
            raise ValueError("deciding: needs a decisions_stream, in which decisions stand")
        return self

    @model_validator(mode="after")
    def _kept_as_kinesis_can(self) -> Self:
        hours = self.kinesis_retention_hours
        if hours is not None and not 24 <= hours <= 8760:
            raise ValueError(f"kinesis_retention: Kinesis keeps records for 24h to 365d, not {self.kinesis_retention}")
        return self

    @model_validator(mode="after")
    def _days_in_order(self) -> Self:
        if self.first_day is not None and self.last_day is not None and self.last_day < self.first_day:
            raise ValueError(f"last_day: {self.last_day} lies before first_day, {self.first_day}")
        return self

    @property
    def kinesis_retention_hours(self) -> int | None:
        """The retention in whole hours, rounded up."""
        return None if self.kinesis_retention is None else -(-parse_duration(self.kinesis_retention) // _HOUR)

    @property
    def kafka_retention_ms(self) -> int:
        """In milliseconds."""
        return parse_duration(self.kafka_retention) // 1_000

    @property
    def clock_skew_us(self) -> int:
        """How far an event's time may lie past its admission, microseconds."""
        return parse_duration(self.clock_skew)

    @property
    def allowed_lateness_us(self) -> int:
        """How much longer than the longest window state is kept, microseconds."""
        return parse_duration(self.allowed_lateness)

    @property
    def policy(self) -> dict[str, Any]:
        """All that shapes decisions and bounds, as JSON has it. A pack of one's own by its name: its digest stands beside it."""
        policy = self.model_dump(mode="json", exclude_none=True, exclude=set(_NO_POLICY))
        if self.class_map is not None:
            policy["class_map"] = self.class_map.digest
        return {**policy, "pack": Path(self.pack).name}

    @property
    def policy_rev(self) -> str:
        """Which policy this is: its revision and the SHA-256 over all of it, as in `3.9f2c...`."""
        return f"{self.policy_revision}.{sha256_hex(jcs_bytes(self.policy))}"

    @property
    def run_config_digest(self) -> str:
        """SHA-256 over the contract and the part of the profile that can change a value or what is refused."""
        declared_map = {} if self.class_map is None else {"class_map_digest": self.class_map.digest}
        return digest_of(
            {
                **declared_map,
                "allowed_lateness_us": self.allowed_lateness_us,
                "clock_skew_us": self.clock_skew_us,
                "contract_version": CONTRACT_VERSION,
                "stream_name": self.stream_name,
            }
        )


def _overlaid(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the fields of an overlay, which goes into those that have fields of their own."""
    whole = dict(base)
    for name, value in overlay.items():
        before = whole.get(name)
        whole[name] = _overlaid(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return whole


def load_profile(path: Path, tier: Tier = Tier.LOCAL) -> Profile:
    """Read and validate a profile, and hand it back as it is in a tier. The overlay of each tier is validated.

    Raises:
        ProfileError: no such file, not YAML, or a field that is wrong; the text names the file and the field.
    """
    content = _content(path)
    profile = _validated(path, content)
    wiring = sorted(WIRING & profile.model_fields_set)
    if tier is not Tier.LOCAL and wiring:
        raise ProfileError(
            f"{path}: {wiring[0]}: names an endpoint, which is no policy: in the tier {tier} it comes from the environment"
            f" (OFP_{wiring[0].upper()}); remove it here"
        )
    of_tiers = {
        other: _validated(path, {**_overlaid(content, overlay), "tiers": {}}, f"tiers.{other}.")
        for other, overlay in profile.tiers.items()
    }
    profile = of_tiers.get(tier, profile.model_copy(update={"tiers": {}}))
    if profile.class_map is not None:
        file = str(path.parent / Path(profile.class_map.file).expanduser())
        profile = profile.model_copy(update={"class_map": profile.class_map.model_copy(update={"file": file})})
    if not profile.pack.endswith(".yaml"):
        return profile
    return profile.model_copy(update={"pack": str(path.parent / Path(profile.pack).expanduser())})


def _content(path: Path) -> Any:
    try:
        content = read_yaml(path, "; `ofp init` writes a profile to start from")
    except YamlFault as fault:
        raise ProfileError(str(fault)) from None
    if (place := raw_identifier_in(content)) is not None:
        raise ProfileError(f"{path}: {place.replace('payload', 'profile', 1)}: a raw identifier (a card number) is refused")
    return content


def _validated(path: Path, content: Any, within: str = "") -> Profile:
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        lines = [f"{path}: {within}{words}" for words in fault_words(error, "the profile")]
        raise ProfileError("\n".join(lines)) from None
