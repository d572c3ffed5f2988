"""The demo's second half: archive, run facts, labels, one published training set, and models that trained from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from ofp_platform.cli.demo.summary import facts, heading
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.offline.build_commands import build_run
from ofp_platform.cli.offline.build_context import build_context_on
from ofp_platform.cli.offline.facts_commands import examine, reference_of
from ofp_platform.cli.offline.label_commands import load_reports
from ofp_platform.cli.offline.model_commands import days_of
from ofp_platform.cli.offline.model_table import model_table
from ofp_platform.cli.offline.run_line import line_of
from ofp_platform.cli.offline.training_set import TrainingSet, training_intent
from ofp_platform.cli.terminal.progress import bar, done, wheel
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.learning.payments import protocol_of, train_on
from ofp_platform.learning.protocol import ProtocolUnmet
from ofp_platform.learning.training import TrainedModel, TrainingReport
from ofp_platform.log.archive import archive_up_to
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.requests.replay_resolution import data_end
from ofp_platform.offline.requests.run_facts_view import load_run_facts, publish_run_facts
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, intent_wire
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis

_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.5
CASE_LABEL = "fraud_disposition"


@dataclass
class OfflineSteps:
    """`ends`: where the replay ends in the log; what others append behind it is not looked at. `trees`: of the forest."""

    environment: Environment
    plane: Plane
    ends: Basis
    asked: TrainingSet
    trees: int
    console: Console
    is_labelled: bool = field(default=False, init=False)
    """Whether a training set came of it."""
    _report: TrainingReport | None = field(default=None, init=False)

    def run(self) -> DatasetManifest | None:
        """All steps; the published dataset, None where no fraud is reported yet.

        Raises:
            CommandRefused: no dataset came of it, or a recorded decision is not what the log gives.
        """
        build_context = build_context_on(self.plane, self.environment)
        self._archive(build_context)
        reference = self._facts()
        known_until = self._labels(build_context)
        if known_until is None:
            done(self.console, "Training set", "none: no fraud is reported yet, and nothing can be learned from that")
            return None
        manifest = self._build(build_context, reference, known_until)
        self.is_labelled = True
        self._tell(build_context, manifest)
        self._train(build_context, manifest)
        return manifest

    @property
    def champion(self) -> TrainedModel | None:
        """The forest that was trained; None where nothing could be learned."""
        return None if self._report is None else next(model for model in self._report.models if model.name == "random_forest")

    def end_of_data(self) -> int:
        """The end of the replay by its own clock, microseconds."""
        return data_end(ReplayBasis.up_to(self.ends), build_context_on(self.plane, self.environment).stream_records)

    def set_after_cases(self, plane: Plane) -> DatasetManifest:
        """The training set built anew, of the label that investigators give: what they said so far, and the reports.

        Raises:
            CommandRefused: no dataset came of it.
        """
        asked = replace(self.asked, name=f"{self.asked.name}_after_cases", label_type=CASE_LABEL)
        steps = replace(self, plane=plane, asked=asked)
        build_context = build_context_on(plane, self.environment)
        known_until = steps._labels(build_context)
        assert known_until is not None  # there was a set before
        return steps._build(build_context, reference_of(plane.profile), known_until)

    def _archive(self, build_context: BuildContext) -> None:
        start = time.monotonic()
        records = sum(self.plane.log.ordinal_lag(self.ends.model_copy(update={"partitions": ()})).values())
        kind = self.plane.log.position_kind.offset_kind
        known_spans = {span for name in build_context.archive.partition_ids() for span in build_context.archive.spans(name, kind)}
        with bar(self.console, "Archiving", records) as advance:
            receipts = archive_up_to(
                self.plane.ranges, build_context.archive, self.ends, 2, lambda receipt: advance(receipt.records)
            )
        new = [receipt for receipt in receipts if receipt.span.model_copy(update={"closed": False}) not in known_spans]
        count, size = sum(receipt.records for receipt in new), sum(receipt.segment_bytes for receipt in new)
        if not new:
            total = sum(receipt.records for receipt in receipts)
            done(self.console, "Archived", f"nothing: all {total:,} records are in {len(receipts)} segments")
            return
        seconds = time.monotonic() - start
        summary = f"{count:,} records in {len(new)} segments, {size / 1e6:,.1f} MB, in {seconds:.1f} s"
        done(self.console, "Archived", f"{summary}, {count / seconds:,.0f} records/s")

    def _facts(self) -> str:
        profile = self.plane.profile
        reference = reference_of(profile)
        try:
            run_facts = load_run_facts(self.plane.pool, reference, profile.context_pins, profile.stream_name)
            done(self.console, "Run facts", f"{reference}: published, {len(run_facts.evidence)} checks passed")
        except BuildRefused as refused:
            if refused.reason is not BuildReason.RUN_FACTS_UNAVAILABLE:
                raise
            new_facts = examine(self.plane, reference)
            publish_run_facts(self.plane.pool, new_facts)
            load_run_facts(self.plane.pool, reference, profile.context_pins, profile.stream_name)
            done(self.console, "Run facts", f"{reference}: {len(new_facts.evidence)} checks passed, published")
        return reference

    def _labels(self, build_context: BuildContext) -> int | None:
        """Append the labels; until when they are known: the newest report, which lies before the end of the data."""
        records = sum(self.plane.log.ordinal_lag(self.ends.model_copy(update={"partitions": ()})).values())
        with bar(self.console, "Reading fraud reports", records) as advance:
            label_type = self.asked.label_type
            _, receipt = load_reports(self.plane, build_context.stream_records, self.ends, advance, label_type)
        done(self.console, "Labels", f"{receipt.new_count:,} assertions appended, {receipt.known_count:,} were there")
        end = data_end(ReplayBasis.up_to(self.ends), build_context.stream_records)
        return LabelStore(self.plane.pool, self.plane.profile.context_pins).known_until(label_type, end)

    def _build(self, build_context: BuildContext, reference: str, known_until: int) -> DatasetManifest:
        registry = self.plane.known_registry()
        pins = self.plane.profile.context_pins
        intent = training_intent(self.asked, registry, pins, self.ends, reference, known_until)
        file = self.intent_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(readable_json(intent_wire(intent)) + "\n", encoding="utf-8")
        start = time.monotonic()
        submitted_run = build_context.ledger.submit(intent)
        if submitted_run.state is RunState.FAILED:
            build_context.ledger.reopen(submitted_run.run_key)
        run = self._finished(build_context, build_run(build_context, submitted_run.run_key, self.console))
        if run.state is not RunState.DONE or run.outcome is None:
            raise CommandRefused(f"no training set came of it: {line_of(run)}")
        manifest = load_manifest(build_context.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])
        if submitted_run.state is RunState.DONE:
            done(self.console, "Training set", f"nothing to build: {manifest.row_count:,} rows are published")
        else:
            seconds = time.monotonic() - start
            rate = f"{manifest.row_count / seconds:,.0f} rows/s"
            done(self.console, "Training set", f"{manifest.row_count:,} rows built and published in {seconds:.1f} s, {rate}")
        return manifest

    def _finished(self, build_context: BuildContext, run: BuildRun) -> BuildRun:
        """The run when whoever builds it is done: another builder (`ofp up` has one) may have been faster to take it."""
        deadline = time.monotonic() + _WAIT_SECONDS
        with wheel(self.console, "Another builder is at it"):
            while run.state in (RunState.RUNNING, RunState.QUEUED) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                run = build_run(build_context, run.run_key, self.console)
        return run

    @property
    def intent_file(self) -> Path:
        """Where the intent lies afterwards."""
        return self.environment.folder / "intents" / f"{self.asked.name}-{self.ends.stream_name}.json"

    def _tell(self, build_context: BuildContext, manifest: DatasetManifest) -> None:
        heading(self.console, "The training set")
        rows = [
            ("dataset", f"{manifest.dataset_name}:{manifest.dataset_identity}"),
            ("content digest", manifest.content_digest),
            ("rows know", manifest.as_of_basis.value),
        ]
        labels, parity = manifest.gates.labels, manifest.gates.parity
        if labels is not None and manifest.label_basis is not None:
            counts = f"{labels.labelled:,} frauds, coverage {labels.coverage}, {labels.immature:,} rows immature"
            rows.append(("labels", f"as of {manifest.label_basis.as_of_utc}: {counts}"))
        rows_checked = f"{manifest.gates.label_rows_checked:,} labels and {manifest.gates.feature_rows_checked:,} feature rows"
        rows.append(("leakage", f"none, checked on {rows_checked}"))
        if parity is not None and parity.anchors:
            share = 100 * parity.match / parity.anchors
            counts = f"{parity.match:,} of {parity.anchors:,} served vectors rebuilt from the log"
            rows.append(("parity", f"{counts}: {share:g}% MATCH"))
        facts(self.console, rows)
        if parity is not None and parity.match != parity.anchors:
            raise CommandRefused(
                f"{parity.mismatch} served vectors are not what the log gives, {parity.uncheckable} cannot be checked;"
                " `ofp parity show` has the evidence"
            )

    def _train(self, build_context: BuildContext, manifest: DatasetManifest) -> None:
        start = time.monotonic()
        try:
            with wheel(self.console, "Training"):
                protocol = protocol_of(build_context.objects, manifest)
                # the handbook's own protocol computes features by event time, and its training set asks for that
                hindsight = self.asked.as_of_basis is AsOfBasis.EVENT_TIME
                report = train_on(build_context.objects, manifest, protocol, trees=self.trees, allow_hindsight=hindsight)
        except (DatasetNotAdmitted, ProtocolUnmet) as unmet:
            heading(self.console, "Models: none")
            self.console.print(f"  {unmet}", highlight=False, markup=False, soft_wrap=True)
            return
        self._report = report
        heading(self.console, f"Models trained from its manifest, in {time.monotonic() - start:.0f} s")
        train, test = (
            days_of(protocol.first_day, protocol.training_days),
            days_of(protocol.first_test_day, protocol.test_days),
        )
        days = [
            ("train", f"{train}: {report.training_rows:,} rows"),
            ("test", f"{test}: {report.test_rows:,} rows, without cards known by then"),
        ]
        facts(self.console, days)
        for line in model_table(report, protocol):
            self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        facts(self.console, [("lineage", report.lineage_path)])
