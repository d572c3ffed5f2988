"""The roles of the jobs suffice for what each does with actions, and for nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest

from ofp_platform.actions.executing import Round
from ofp_platform.actions.ports import Done, Unknown
from ofp_platform.online.plane import Plane
from ofp_platform.storage.action_records import count_actions, held_accounts, list_actions
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.roles import Job, default_role, register_role
from ofp_platform.vocabulary.loop.action import ActionState, OutcomeKind
from ofp_platform_tests.actions.conftest import Scripted, Site


@pytest.fixture
def as_job(site: Site) -> Iterator[Callable[[Job], Site]]:
    """The same site, connected in the role of a job."""
    with ExitStack() as stack:

        def connect(job: Job) -> Site:
            plane = stack.enter_context(
                Plane.open_without_log(site.plane.profile, as_role(site.plane.dsn, default_role(job)), max_connections=2)
            )
            return replace(site, plane=plane, log=plane.decisions_log())

        yield connect


@pytest.mark.parametrize("job", [Job.DECIDER, Job.INGRESS, Job.EXECUTOR])
def test_who_may_want_actions(site: Site, as_job: Callable[[Job], Site], job: Job) -> None:
    theirs = as_job(job)
    intent = theirs.intent("d-1")
    assert theirs.record(intent).new_intents == (intent,)
    assert theirs.record(theirs.intent("d-1", reason="x")).conflicts
    assert len(site.stream()) == 1


@pytest.mark.parametrize("job", [Job.PROJECTOR, Job.SERVING, Job.OFFLINE, Job.AUDITOR])
def test_who_may_not_reach_the_stream(site: Site, as_job: Callable[[Job], Site], job: Job) -> None:
    theirs = as_job(job)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        theirs.record(theirs.intent("d-1"))
    assert site.stream() == []
    with site.plane.pool.connection() as connection:
        assert count_actions(connection, site.pins) == {}


def test_the_executor_does_everything_and_the_decider_nothing(site: Site, as_job: Callable[[Job], Site]) -> None:
    site.record(site.intent("d-1"), site.intent("d-2", "notify_decision"), site.intent("d-3", actor="somebody"))
    webhook = Scripted([Unknown("no answer")], [Done()])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_job(Job.DECIDER).executor({"cases": webhook}).run_round()
    plane = Plane.open_without_log(site.plane.profile, as_role(site.plane.dsn, default_role(Job.EXECUTOR)))
    with plane:
        executor = replace(site.executor({"cases": webhook}), pool=plane.pool, log=plane.decisions_log())
        assert executor.run_round() == Round(Counter({OutcomeKind.EXECUTED: 1, OutcomeKind.DENIED: 1}), waiting=1)
        site.make_due()
        assert executor.run_round() == Round(Counter({OutcomeKind.EXECUTED: 1}))
    auditor = as_job(Job.AUDITOR)
    with auditor.plane.pool.connection() as connection:
        assert count_actions(connection, site.pins) == {ActionState.EXECUTED: 2, ActionState.DENIED: 1}
        assert len(list_actions(connection, site.pins)) == 3
        assert held_accounts(connection, site.pins, ["acct-1"]) == {"acct-1"}


def test_a_role_of_another_run_sees_none_of_it(site: Site, as_job: Callable[[Job], Site]) -> None:
    site.record(site.intent("d-1"))
    with site.plane.pool.connection() as connection, connection.transaction():
        register_role(connection, default_role(Job.EXECUTOR), Job.EXECUTOR, ["another"])
    try:
        theirs = as_job(Job.EXECUTOR)
        assert theirs.executor().run_round().total == 0
        with theirs.plane.pool.connection() as connection:
            assert list_actions(connection, site.pins) == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            theirs.record(theirs.intent("d-2"))
    finally:
        with site.plane.pool.connection() as connection, connection.transaction():
            register_role(connection, default_role(Job.EXECUTOR), Job.EXECUTOR, ["*"])
