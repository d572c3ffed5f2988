"""Refusals and outages in words, on stderr, with exit code 1; never with a stack trace."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from ofp_platform.cli.terminal.printed_facts import visible

LOOK_AT_IT = "`ofp doctor` looks at the database, and says what to do"
MIGRATE_FIRST = "this database has no schema of the plane yet: run `ofp migrate`"


def words_for(error: Exception) -> str | None:
    """Message for an expected error; None for a defect, whose stack trace is wanted."""
    import psycopg

    from ofp_platform.actions.allow_list import ActionPolicyUnusable
    from ofp_platform.actions.intents import IntentConflict
    from ofp_platform.actions.settling import NothingToSettle
    from ofp_platform.actions.webhook import WebhookUnusable
    from ofp_platform.api.connection_places import TooFewFiles
    from ofp_platform.api.principals import PrincipalsError
    from ofp_platform.api.server import AddressError
    from ofp_platform.api.tls import CertificateUnusable
    from ofp_platform.audit.leaf_rows import NodeMissing
    from ofp_platform.audit.signing_keys import KeyRefused
    from ofp_platform.audit.tree_heads import AuditRefused
    from ofp_platform.bundles.bundle_file import BundleFileError
    from ofp_platform.bundles.lifecycle import BundleRefused
    from ofp_platform.bundles.trained_model import ModelRefused
    from ofp_platform.cases.case_desk import CaseNotFound, CaseNotNow, EntryConflict
    from ofp_platform.client import AnswerNotTrusted, ServiceUnreachable
    from ofp_platform.decisions.decision_file import DecisionFileError
    from ofp_platform.ingress.batches import IngressRefused
    from ofp_platform.ingress.class_map import ClassMapError
    from ofp_platform.ingress.own_streams import MessageRefused
    from ofp_platform.ingress.receipts import UnknownReceipt
    from ofp_platform.learning.exact_trees import NotExportable
    from ofp_platform.learning.protocol import ProtocolUnmet
    from ofp_platform.log.archive import ArchiveConflict
    from ofp_platform.log.archive_segment import SegmentDamaged
    from ofp_platform.log.archive_store import ReceiptDamaged, SegmentMissing
    from ofp_platform.log.port import LogError
    from ofp_platform.log.span_records import ReplayGap
    from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound
    from ofp_platform.offline.labels.report_file import ReportFileError
    from ofp_platform.offline.parity.explanation import NotExplained
    from ofp_platform.offline.parity.forensic_rebuild import NotRebuildable
    from ofp_platform.offline.parity.parity_summary import ParityUnreadable
    from ofp_platform.offline.replay.memory_budget import MemoryTooSmall
    from ofp_platform.offline.requests.run_facts_view import RunFactsConflict
    from ofp_platform.offline.runs.run_lease import LeaseLost
    from ofp_platform.offline.runs.run_ledger import RunOfOldForm, UnknownRun
    from ofp_platform.offline.sources.spark_engine import SparkUnavailable
    from ofp_platform.online.plane import NoContextStream, NoControlStream, NoDecisionsStream
    from ofp_platform.online.projecting.epoch_barrier import EpochHeld
    from ofp_platform.online.projecting.epoch_records import EpochDiffers
    from ofp_platform.online.ranges.log_trim import TrimRefused
    from ofp_platform.online.ranges.pack_plan import PlanRefused
    from ofp_platform.online.ranges.rebuild import RebuildRefused
    from ofp_platform.online.state.key_shards import ShardRefused
    from ofp_platform.online.state.projection import ProjectionConflict, RegistryRefused, UnknownProjection
    from ofp_platform.posture.keeper import PostureRefused
    from ofp_platform.registry.pack_text import PackErrors
    from ofp_platform.scenario.runner import RunRefused
    from ofp_platform.simulation.handbook_file import HandbookFileError
    from ofp_platform.storage.bundle_events import BundleDamaged
    from ofp_platform.storage.embedded import EmbeddedPostgresError
    from ofp_platform.storage.objects import ObjectConflict, ObjectStoreUnavailable
    from ofp_platform.storage.postgres import DatabaseUnavailable, DsnNotCarried
    from ofp_platform.storage.run_states import RunNotReady
    from ofp_platform.storage.transient import is_transient, outage_message
    from ofp_platform.tables.import_rules import ImportRulesError
    from ofp_platform.tables.table_file import TableFault
    from ofp_platform.vocabulary.errors import ContractError
    from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
    from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted
    from ofp_platform.vocabulary.profile import ProfileError
    from ofp_platform.world.world_rows import WorldFault

    if isinstance(error, ContractError):
        again = " (worth another attempt)" if error.retryable else ""
        return f"{error.code} / {error.reason}: {error.message}{again}"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return MIGRATE_FIRST
    if isinstance(error, psycopg.errors.NumericValueOutOfRange):
        return "a number is greater than any that the database keeps (2^63-1): nothing has it"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            f"the database does not let this role do that: {error.diag.message_primary}. Each job has a role, whose rights"
            " `ofp migrate`, run by the owner of the schema, gives: see database roles in docs/operating.md"
        )
    if isinstance(error, psycopg.Error) and is_transient(error):
        return f"{outage_message(error).rstrip()}\n{LOOK_AT_IT}"
    expected_errors = (
        ActionPolicyUnusable,
        AddressError,
        AnswerNotTrusted,
        ArchiveConflict,
        AuditRefused,
        BuildRefused,
        BundleDamaged,
        BundleFileError,
        BundleRefused,
        CaseNotFound,
        CaseNotNow,
        CertificateUnusable,
        DatasetNotAdmitted,
        CommandRefused,
        ClassMapError,
        DatabaseUnavailable,
        DatasetDamaged,
        DatasetNotFound,
        DecisionFileError,
        ReportFileError,
        DsnNotCarried,
        EmbeddedPostgresError,
        EntryConflict,
        EpochDiffers,
        EpochHeld,
        HandbookFileError,
        ImportRulesError,
        IntentConflict,
        IngressRefused,
        KeyRefused,
        LeaseLost,
        LogError,
        MemoryTooSmall,
        MessageRefused,
        ModelRefused,
        NoContextStream,
        NoControlStream,
        NoDecisionsStream,
        NodeMissing,
        NotExplained,
        NotExportable,
        NothingToSettle,
        NotRebuildable,
        ObjectConflict,
        ObjectStoreUnavailable,
        PackErrors,
        ParityUnreadable,
        PlanRefused,
        PostureRefused,
        PrincipalsError,
        ProfileError,
        ProjectionConflict,
        ProtocolUnmet,
        RebuildRefused,
        ReceiptDamaged,
        RegistryRefused,
        ReplayGap,
        RunFactsConflict,
        RunNotReady,
        RunOfOldForm,
        RunRefused,
        SegmentDamaged,
        SegmentMissing,
        ServiceUnreachable,
        ShardRefused,
        SparkUnavailable,
        TableFault,
        TooFewFiles,
        TrimRefused,
        UnknownProjection,
        UnknownReceipt,
        UnknownRun,
        WebhookUnusable,
        WorldFault,
    )
    return str(error) if isinstance(error, expected_errors) else None


class CommandRefused(Exception):
    """A command cannot do what it was asked to; the text says why and what to do."""


@contextmanager
def given_in_words(whole: str) -> Iterator[None]:
    """Refuse in words what somebody gave, where the model that is made of it here does not take it. `whole`: its name.

    Raises:
        CommandRefused: a line for each field that is wrong.
    """
    from pydantic import ValidationError

    from ofp_platform.vocabulary.yaml_file import fault_words

    try:
        yield
    except ValidationError as error:
        raise CommandRefused("\n".join(fault_words(error, whole))) from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: what it started is stopped. (Commands that serve have handlers of their own.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RefusingGroup(TyperGroup):
    """The top of the program: turns expected errors into words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was asked for. Bytes that are no text cannot be looked for, stored or printed."""
        for argument in args:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise typer.BadParameter(f"{visible(argument)} is not UTF-8 text", ctx=ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _ended_by_sigterm():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            words = words_for(error)
            if words is None:
                raise
            typer.echo("\n".join(map(visible, words.split("\n"))), err=True)
            raise typer.Exit(1) from None
