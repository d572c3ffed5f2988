"""`ofp decision whatif`: which decisions would have been others, and which change flips each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.other_vectors import PackUnfit, other_registry, other_vectors
from ofp_platform.cli.online.decided_pages import Limit, over_run
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, table
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.loop.posture import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ofp_platform.decisions.what_if import WhatIfTally
    from ofp_platform.vocabulary.loop.bundle import BundleRef

_MOST_SHOWN = 20


def what_if(
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", metavar="NAME/DIGEST", help="A published bundle that decides instead.", show_default=False),
    ] = None,
    mode: Annotated[Mode | None, typer.Option("--mode", help="The mode that is applied instead.", show_default=False)] = None,
    pack: Annotated[
        str | None,
        typer.Option(
            "--pack",
            metavar="PACK",
            help="Defines the features instead: pack file, name of a shipped pack, or digest of a published one.",
            show_default=False,
        ),
    ] = None,
    as_known_now: Annotated[
        bool, typer.Option("--as-known-now", help="With the events, amendments and links that are known by now.")
    ] = False,
    limit: Limit = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Decide on past events otherwise and show which decisions flip: from what to what, and which change does it. The vectors are
    those that were served; with --pack and --as-known-now they are rebuilt from the log. Nothing is written or done.

    Exit code 1 if of no decision it can be told what it would have been.
    """
    from ofp_platform.decisions.ready_bundles import ReadyBundles
    from ofp_platform.decisions.what_if import Alternative, WhatIf

    if bundle is None and mode is None and pack is None and not as_known_now:
        raise CommandRefused("say what is otherwise: --bundle NAME/DIGEST, --mode MODE, --pack PACK, --as-known-now, or several")
    environment = resolve(home, profile)
    with environment.open_plane("auditor") as plane:
        load = ReadyBundles(plane.objects).load
        other = None if bundle is None else load(_bundle_ref(bundle))
        try:
            registry = None if pack is None else other_registry(plane, pack, other, files=True)
        except PackUnfit as unfit:
            raise CommandRefused(f"--pack: {unfit}") from None
        with other_vectors(plane, environment.folder, as_known_now=as_known_now, pack=registry) as vectors:
            trial = WhatIf(Alternative(other, mode, vectors), load)
            over_run(plane, limit, "Deciding otherwise", trial.look_at)
    tally = trial.tally
    if not tally.looked_at:
        raise CommandRefused("the plane has decided on nothing in the run of the profile: there is nothing to compare with")
    facts = {
        "decisions": tally.looked_at,
        "same": tally.same,
        "flips": tally.flips if json else len(tally.flips),
        "by_cause": {cause.value: count for cause, count in sorted(tally.by_cause.items())},
        "untold": dict(sorted(tally.untold.items())),
        "untold_decisions": tally.untold_decisions if json else len(tally.untold_decisions),
    }
    print_facts(facts, _lines(tally), as_json=json)
    if len(tally.untold_decisions) == tally.looked_at:
        typer.echo("of no decision it can be told what it would have been", err=True)
        raise typer.Exit(1)


def _lines(tally: WhatIfTally) -> Iterator[str]:
    yield f"{tally.looked_at:,} decisions: {tally.same:,} as they are, {len(tally.flips):,} flip"
    yield from (f"{count:,} from {before} to {after}" for (before, after), count in sorted(tally.by_change.items()))
    if tally.flips:
        yield from table(["cause", "flips", "alone"], tally.cause_rows)
    yield from (f"{count:,} cannot be told: {reason}" for reason, count in sorted(tally.untold.items()))
    for flip in tally.flips[:_MOST_SHOWN]:
        causes = ", ".join(flip.causes)
        yield from item(
            flip.event_id, f"{flip.before} -> {flip.after}", causes, f"score {flip.score_before} -> {flip.score_after}"
        )
    for untold in tally.untold_decisions[:_MOST_SHOWN]:
        yield from item(untold.event_id, untold.reason, details=[untold.detail] if untold.detail else [])


def _bundle_ref(text: str) -> BundleRef:
    from ofp_platform.vocabulary.loop.bundle import bundle_named

    try:
        return bundle_named(text)
    except ValueError as error:
        raise CommandRefused(str(error)) from None
