"""The demo's last part, the loop: a bundle decides, what it wants is done, cases are closed, labels come back, a challenger is
tried, and all of it is made again, proven and summed up."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import ofp_platform
from ofp_platform.actions.executing import ActionExecutor, Round, run_until_done
from ofp_platform.actions.webhook import open_webhooks
from ofp_platform.audit.appending import append_records
from ofp_platform.audit.proving import proof_file, prove_record
from ofp_platform.audit.signing_keys import SigningKey, read_key, write_key
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.bundles.bundle_file import bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.bundle_registry import BundleRegistry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.bundles.trained_model import load_trained_model
from ofp_platform.cases.case_desk import CaseDesk
from ofp_platform.cases.triggering import Collection, collect
from ofp_platform.cli.demo.offline_steps import CASE_LABEL, OfflineSteps
from ofp_platform.cli.demo.summary import facts, heading
from ofp_platform.cli.demo.webhook_receiver import HOOK_PATH, STATUS_PATH, WebhookReceiver, serving
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.offline.loop_sums import sum_up_loop
from ofp_platform.cli.offline.retraining import retrain
from ofp_platform.cli.online.decide import KnownService
from ofp_platform.cli.online.decided_run import decided_run
from ofp_platform.cli.online.decider_commands import opened_decider, words_of
from ofp_platform.cli.online.proof_evidence import proof_of_decision
from ofp_platform.cli.terminal.progress import done, wheel
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import ReplayTally, redecide
from ofp_platform.decisions.what_if import Alternative, WhatIf
from ofp_platform.governance.loop_reconciliation import keep_reconciliation
from ofp_platform.learning.training import TrainedModel
from ofp_platform.offline.labels.label_intake import LabelIntake
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.online.plane import Plane
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.registry.models import event_class
from ofp_platform.storage.decider_places import decided_span
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.loop.action import HOLD_ACCOUNT
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy, AllowedAction, Webhook
from ofp_platform.vocabulary.loop.bundle import Bundle, Slot
from ofp_platform.vocabulary.loop.case import Closed, DecisionEvidence, Triggered
from ofp_platform.vocabulary.loop.case_requests import LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.challenger_report import RuleName
from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import DecidedAction, DecidingPolicy, Profile
from ofp_platform.vocabulary.times import format_time

_WEBHOOK, _TELL = "payments", "tell_payments"
_SECRET = "OFP_DEMO_WEBHOOK_SECRET"
_STORED_SECONDS = 60.0
_MOST_CASES = 25
_DECIDER = "decider"
_BESIDE: RuleName = "behind_active_at_most"


def loop_profile(profile: Profile, event_type: str) -> Profile:
    """The profile with the streams of control and of decisions, and what is decided on."""
    actions = (
        DecidedAction(outcome="decline", action_type=HOLD_ACCOUNT, key_type=KeyType.ACCOUNT),
        *(DecidedAction(outcome=outcome, action_type=_TELL, webhook=_WEBHOOK) for outcome in ("review", "decline")),
    )
    return profile.model_copy(
        update={
            "control_stream": f"{profile.stream_name}-control",
            "decisions_stream": f"{profile.stream_name}-decisions",
            # everything is new to the service of the demo, and the machine may be busy
            "deciding": DecidingPolicy(event_type=event_type, deadline_ms=10_000, actions=actions),
        }
    )


@dataclass
class LoopSteps:
    """`plane`: of a `loop_profile`; `begin`: from where the plane itself decides; `half`: what was learned before; if nothing
    was, rules alone decide.
    """

    environment: Environment
    plane: Plane
    service: KnownService
    begin: Basis
    half: OfflineSteps
    console: Console

    def run(self) -> None:
        """All steps.

        Raises:
            CommandRefused: something does not add up; the text says what.
        """
        plane = self.plane
        bundle = self._put_in_force()
        self._decide()
        past = self._made_again()
        self._act()
        self._cases()
        self._challenge(past)
        head, key = self._audit()
        report = self._reconcile()
        heading(self.console, "The loop")
        rows = [
            ("bundle in force", f"{bundle.bundle_name}/{bundle.ref.digest}"),
            ("decisions", f"{report.decisions:,} of {report.traffic:,} events, made again to the last byte: {len(past):,}"),
            ("actions", f"{report.intents:,} intents = {report.executed:,} executed + {report.denied + report.failed:,} not"),
            ("labels", _label_words(report)),
            ("audit", f"{report.decision_leaves:,} decisions under a head of {head:,} leaves"),
        ]
        proof = self._prove(past, key)
        if proof is not None:
            rows.append(("one portable proof", str(proof)))
        facts(self.console, rows)
        path = keep_reconciliation(plane.objects, report)
        facts(self.console, [("reconciliation", f"{path}: it balances to the unit")])

    def _put_in_force(self) -> Bundle:
        plane = self.plane
        registry = plane.known_registry()
        path = bundle_source(registry.pack.pack_id)
        bundle = self._bundle(path, self.half.champion)
        live = LivePlane(registry, plane.profile.context_stream is not None)
        engineer, officer = self._registry("ml-engineer"), self._registry("risk-officer")
        engineer.publish(bundle, "trained on the first weeks")
        officer.approve(bundle.ref, "its report was read")
        with plane.pool.connection() as connection:
            span = decided_span(connection, plane.profile.context_pins, plane.log.stream_name)
        if span is None:  # a second run finds it in force
            officer.activate(bundle.ref, TrafficMode.FRAUD, Slot.ACTIVE, live, "it decides from here on")
        profile = plane.profile
        control = plane.control_log(create=True)
        keeper = PostureKeeper(plane.pool, control, profile.context_pins, profile.policy_rev, _now, "operator")
        keeper.hold(Mode.NORMAL, "the demo begins")
        champion = self.half.champion
        model = "rules alone" if champion is None else f"rules and {champion.name.replace('_', ' ')}"
        done(self.console, "Bundle in force", f"{bundle.bundle_name}/{bundle.ref.digest[:12]}: {model}, posture NORMAL")
        return bundle

    def _registry(self, actor: str) -> BundleRegistry:
        plane = self.plane
        return BundleRegistry(plane.pool, plane.objects, plane.control_log(create=True), plane.profile, actor, _now)

    def _bundle(self, path: Path, model: TrainedModel | None) -> Bundle:
        trained = None if model is None else load_trained_model(self.plane.objects, model.path, model.report_path)
        return make_bundle(path, read_bundle_file(path), self.plane.known_registry(), trained)

    def _decide(self) -> None:
        start = time.monotonic()
        with (
            opened_decider(self.plane, self.service.address, self.service.token) as (decider, questions),
            wheel(self.console, "Deciding"),
        ):
            decider.begin_at(self.begin)
            tally = questions.run(decider.decide_available())
        seconds = time.monotonic() - start
        rate = f", {tally.outcomes.total() / seconds:,.0f}/s" if tally.outcomes else ""
        done(self.console, "Decided", words_of(tally) + rate)

    def _past(self) -> list[PastDecision]:
        run = decided_run(self.plane)
        return [decision for page in run.pages(run.parts()) for decision in page]

    def _reader(self) -> EventReader:
        profile = self.plane.profile
        assert profile.deciding is not None
        return EventReader(self.plane.archived_log, profile.context_pins, profile.deciding.event_type, profile.clock_skew_us)

    def _made_again(self) -> list[PastDecision]:
        """Every decision of the plane, made again once what was served for it is stored."""
        deadline = time.monotonic() + _STORED_SECONDS
        with wheel(self.console, "Deciding again"):
            past = self._past()
            while any(decision.is_vector_lost for decision in past) and time.monotonic() < deadline:
                time.sleep(0.5)
                past = self._past()
            tally = ReplayTally()
            redecide(past, ReadyBundles(self.plane.objects).load, tally)
        if tally.equal != tally.decisions or not tally.decisions:
            differing = tally.decisions - tally.equal
            raise CommandRefused(f"{differing:,} of {tally.decisions:,} decisions are not the same when they are made again")
        done(self.console, "Decided again", f"{tally.decisions:,} decisions from their records: equal to the last byte")
        return past

    def _act(self) -> None:
        """Do what decisions to review or to decline want: tell a webhook that is served here; of the latter, hold the account."""
        plane = self.plane
        receiver = WebhookReceiver(secrets.token_bytes(24))
        with serving(receiver) as address:
            policy = ActionPolicy(
                revision=1,
                allow_list=(
                    AllowedAction(actor=_DECIDER, action_type=HOLD_ACCOUNT, scope=KeyType.ACCOUNT.value),
                    AllowedAction(actor=_DECIDER, action_type=_TELL, scope=_WEBHOOK),
                ),
                webhooks={
                    _WEBHOOK: Webhook(
                        url=address + HOOK_PATH, secret_variable=_SECRET, status_url=address + STATUS_PATH + "{key}"
                    )
                },
            )
            environ = {_SECRET: "whsec_" + base64.b64encode(receiver.secret).decode()}
            log, pins = plane.decisions_log(), plane.profile.context_pins
            total = Round()
            with open_webhooks(policy, environ, _now) as webhooks, wheel(self.console, "Acting"):

                def take(latest: Round) -> None:
                    nonlocal total
                    total += latest

                run_until_done(ActionExecutor(plane.pool, log, pins, policy, webhooks, _now), take)
        outcomes = ", ".join(f"{count:,} {kind}" for kind, count in sorted(total.outcomes.items())) or "nothing more is wanted"
        done(self.console, "Acted", f"{outcomes}; the webhook was told {len(receiver.messages):,} times")

    def _cases(self) -> None:
        """Open cases of what was not approved; a scripted investigator looks at some, labels and closes them."""
        plane = self.plane
        pins, events = plane.profile.context_pins, plane.known_registry().pack.events
        report = collect(plane.pool, Collection(pins, lambda name: event_class(events, name), _now))
        # the investigator of the replay speaks at its end, by its clock: a training set of it may know what was said
        intake = LabelIntake(LabelStore(plane.pool, pins), events, as_observed)
        said_at = format_time(self.half.end_of_data())
        desk = CaseDesk(plane.pool, pins, intake, _now)
        said: Counter[str] = Counter()
        with wheel(self.console, "Looking at cases"):
            for case in desk.cases(CaseState.OPEN, _MOST_CASES).cases:
                declined = any(
                    isinstance(entry.content, Triggered)
                    and isinstance(entry.content.evidence, DecisionEvidence)
                    and entry.content.evidence.outcome is Outcome.DECLINE
                    for entry in desk.case(case.case_id).timeline
                )
                word = "fraud" if declined else "legitimate"
                ask = LabelAsk(label_type=CASE_LABEL, word=word, observed_time_utc=said_at)
                desk.assert_label(case.case_id, ask, f"demo/{case.case_id[:12]}/label", "investigator")
                desk.add(case.case_id, Closed(reason="looked at"), f"demo/{case.case_id[:12]}/close", "investigator")
                said[word] += 1
        words = ", ".join(f"{count:,} {word}" for word, count in sorted(said.items())) or "none is open"
        done(self.console, "Cases", f"{report.triggers:,} triggers; a scripted investigator closed {said.total():,}: {words}")

    def _challenge(self, past: list[PastDecision]) -> None:
        """Train again on a set that knows what cases said, and try what came of it on what was decided."""
        if not self.half.is_labelled:
            return
        plane = self.plane
        manifest = self.half.set_after_cases(plane)
        if (labels := manifest.gates.labels) is not None:
            done(self.console, "Labels in it", f"{labels.labelled:,} rows are labelled, by reports and out of cases")
        with wheel(self.console, "Training a challenger"):
            report = retrain(plane, manifest, "ml-engineer", _now).report
        estimator = report.policy.estimator.replace("_", " ")
        if report.challenger is None:
            done(self.console, f"Challenger ({estimator})", f"not published: {'; '.join(report.problems)}")
            return
        figures = "; ".join(f"{rule.metric} {rule.seen}, {rule.asked}" for rule in report.rules if rule.rule == _BESIDE)
        done(self.console, f"Challenger ({estimator})", f"passed the gate and is published, not in force: {figures}")
        load = ReadyBundles(plane.objects).load
        trial = WhatIf(Alternative(bundle=load(report.challenger)), load)
        with wheel(self.console, "Deciding otherwise"):
            trial.look_at(past)
        changes = ", ".join(f"{count:,} {before} -> {after}" for (before, after), count in sorted(trial.tally.by_change.items()))
        causes = ", ".join(f"{count:,} by {cause}" for cause, count in sorted(trial.tally.by_cause.items()))
        told = f"{len(trial.tally.flips):,} of {len(past):,} decisions would flip" + (f": {changes}; {causes}" if changes else "")
        done(self.console, "What if it were in force", told)

    def _audit(self) -> tuple[int, SigningKey]:
        plane = self.plane
        file = self.environment.folder / "audit.key"
        key = read_key(file, None) if file.exists() else write_key(file, secrets.token_bytes(32))
        with wheel(self.console, "Signing"):
            outcome = append_records(plane.pool, plane.objects, key, _now)
        if outcome.heads:
            head = outcome.heads[-1]
            signed = f"head of {head.tree_size:,} signed by {key.key_id[:12]}"
            done(self.console, "Audit log", f"{outcome.leaf_count:,} leaves added, {signed}")
        else:
            done(self.console, "Audit log", "nothing is new: no head was signed")
        with plane.pool.connection() as connection:
            [(size,)] = connection.execute("SELECT max(tree_size) FROM ofp.audit_head").fetchall()
        return int(size), key

    def _prove(self, past: list[PastDecision], key: SigningKey) -> Path | None:
        """Prove one decision in a file, and have it verified by the verifier that stands alone."""
        chosen = next((one for one in past if one.content["outcome"] == "decline" and one.by_key is not None), past[-1])
        plane = self.plane
        with plane.pool.connection() as connection:
            proof = prove_record(connection, plane.objects, chosen.decision_id)
        try:
            proof = proof_of_decision(plane, proof, with_payload=False, with_events=True)
            content = proof_file(proof)
        except AuditRefused:  # so many events stand behind its values that they do not fit into 32 kB
            content = proof_file(proof_of_decision(plane, proof, with_payload=False, with_events=False))
        file = self.environment.folder / "proofs" / f"{chosen.decision_id[:16]}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content + b"\n")
        verifier = Path(ofp_platform.__file__).parents[1] / "contracts" / "verify_proof.py"
        if not verifier.exists():
            done(self.console, "Portable proof", f"{file}; its verifier stands in contracts/ of the repository")
            return file
        command = [sys.executable, "-I", str(verifier), str(file), "--public-key", key.key_id]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        if verified.returncode != 0:
            raise CommandRefused(f"the proof {file} is not verified: {verified.stdout.strip()} {verified.stderr.strip()}")
        size = file.stat().st_size
        done(self.console, "Portable proof", f"{size:,} bytes; a verifier of Python's standard library alone says it is proven")
        return file

    def _reconcile(self) -> LoopReconciliation:
        report = sum_up_loop(self.plane)
        if report.differences:
            raise CommandRefused("the loop does not balance:\n" + "\n".join(report.differences))
        return report


def _label_words(report: LoopReconciliation) -> str:
    return f"{report.labels_asserted:,} asserted = {report.labels_accepted:,} accepted + {report.labels_rejected:,} rejected"


def _now() -> int:
    return time.time_ns() // 1_000
