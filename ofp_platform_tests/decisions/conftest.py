"""A small plane with simulated payments behind a real server, and a bundle that decides on them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.client import AsyncOfpClient
from ofp_platform.decisions.decision_point import CARD_PAYMENTS, DecisionPoint
from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.decisions.loop import DecisionService
from ofp_platform.decisions.recorder import DecisionRecorder
from ofp_platform.online.plane import Plane
from ofp_platform.storage.bundle_events import bundle_path
from ofp_platform.storage.decision_records import decision_ids_in, read_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleInForce, BundleModel, Comparison, FeatureOperand, Guardrail
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.loop.eval_report import Thresholds
from ofp_platform.vocabulary.loop.exact_model import ExactModel, FeatureInput, LinearForm, PayloadInput
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef
from ofp_platform_tests.api.keys import KEY, write_principals
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile

DECIDED_AT = 1_800_000_000_000_000


@dataclass
class Served:
    """A plane with all payments applied, behind a server."""

    plane: Plane
    address: str
    profile: Profile

    def reader(self) -> EventReader:
        return EventReader(self.plane.log, self.profile.context_pins, "card_payment", self.profile.clock_skew_us)

    def events(self) -> list[ReadEvent]:
        return [event for page in self.reader().pages(records=50) for event in page.events]

    @asynccontextmanager
    async def service(self, point: DecisionPoint = CARD_PAYMENTS, start: int = DECIDED_AT) -> AsyncIterator[DecisionService]:
        """Decisions a microsecond apart from each other."""
        ticks = count(start)
        async with AsyncOfpClient(self.address, token=KEY, timeout_seconds=20.0) as client:
            recorder = DecisionRecorder(self.plane.pool)
            yield DecisionService(client, recorder, point, self.profile.context_pins, lambda: next(ticks), connections=4)

    def recorded(self) -> dict[str, DecisionRecord]:
        with self.plane.pool.connection() as connection:
            ids = decision_ids_in(connection, self.profile.context_pins, ReplayBasis.up_to(self.plane.log.ends()))
            return read_decisions(connection, ids)


@pytest.fixture
def served(dsn: str, tmp_path: Path) -> Iterator[Served]:
    # every payment can be decided on behind the last one
    declared = profile(tmp_path, allowed_lateness="30d")
    path = write_profile(tmp_path, allowed_lateness="30d")
    with Plane.open(declared, dsn) as plane:
        append(plane.log)
        project_available(plane.projector(plane.ensure_live()), 1_000, lambda records: None)
        command = ofp_command("serve", "--port", "0", "--profile", str(path), "--home", str(tmp_path))
        root = str(Path(sys.modules[Served.__module__].__file__ or "").parents[2])
        principals = write_principals(tmp_path / "principals.json")
        environment = {
            "OFP_DATABASE_URL": dsn,
            "OFP_PRINCIPALS": str(principals),
            "PYTHONPATH": os.pathsep.join([root, *sys.path]),
        }
        with Child("the service", command, environment, tmp_path / "serve.log") as child:
            address = child.wait_for_line("serving at ", 60)
            assert address is not None
            yield Served(plane, address, declared)


def group(name: str) -> FeatureGroupRef:
    return FeatureGroupRef(group_name=name, group_version="v1")


CARD, ACCOUNT, DEVICE = group("card_activity"), group("account_activity"), group("device_activity")
MODEL = ExactModel(
    model_name="velocity",
    inputs=(
        FeatureInput(group_name="card_activity", group_version="v1", feature="count_1h", scale=0, absent=0),
        FeatureInput(group_name="card_activity", group_version="v1", feature="declined_ratio_1h", scale=6, absent=0),
        FeatureInput(group_name="device_activity", group_version="v1", feature="distinct_cards_24h", scale=0, absent=0),
        PayloadInput(field="amount_minor", scale=0),
    ),
    score_scale=6,
    score_kind="log_odds",
    form=LinearForm(
        base=0, weights=(1_000_000, 3, 500_000, 10), references=(1, 0, 1, 0), least=(0,) * 4, greatest=(100, 10**6, 50, 10**9)
    ),
)
BIG_AMOUNT = Guardrail(
    reason_code="BIG_AMOUNT",
    outcome=Outcome.DECLINE,
    all_of=(Comparison(field="amount_minor", operator="at_least", value=20_000),),
)
BUSY_ACCOUNT = Guardrail(
    reason_code="BUSY_ACCOUNT",
    outcome=Outcome.REVIEW,
    all_of=(
        Comparison(
            feature=FeatureOperand(group_name="account_activity", group_version="v1", feature="count_24h"),
            operator="above",
            value="30.5",
        ),
    ),
)


def make_bundle(registry_digest: str, **changes: Any) -> Bundle:
    """A bundle of both, which can do without the group of devices."""
    content: dict[str, Any] = {
        "bundle_name": "velocity",
        "event_type": "card_payment",
        "key_fields": {"account": "account_id", "card": "card_id", "device": "device_id"},
        "groups": (ACCOUNT, CARD, DEVICE),
        "optional_groups": (DEVICE,),
        "feature_definition_set": FeatureDefinitionSet(pack_id="card_payments", revision=1, digest=registry_digest),
        "guardrails": (BIG_AMOUNT, BUSY_ACCOUNT),
        "model": BundleModel(
            path=f"learning/{MODEL.digest}.json",
            digest=MODEL.digest,
            thresholds=Thresholds(review_from=1_500_000, decline_from=4_000_000),
        ),
        **changes,
    }
    return Bundle.model_validate(content)


def publish(objects: ObjectStore, bundle: Bundle) -> BundleInForce:
    """Put it and its model where they are looked for."""
    objects.put_same(bundle_path(bundle.ref), bundle.stored())
    if bundle.model is not None:
        objects.put_same(bundle.model.path, MODEL.stored())
    position = Position(stream_name="control", partition_id="0000", offset=3)
    return BundleInForce(bundle=bundle.ref, sequence=2, position=position)
