"""`ofp database`: the roles of the database, and whose runs they see."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts, table
from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(help="Give database roles the rights of their jobs.", no_args_is_help=True)
_JOB = "ingress, projector, serving, offline, decider, executor or auditor."


@app.command("sql", short_help="Print the SQL that makes a role for each job.")
def show_sql(
    prefix: Annotated[str, typer.Option("--prefix", help="Begin of the names: PREFIX_serving and so on.")] = "ofp",
) -> None:
    """Print what an administrator runs: roles without rights, with the limits of their sessions. Passwords are not in it."""
    from ofp_platform.storage.roles import Job, role_statements

    for job in Job:
        for statement in role_statements(f"{prefix}_{job}", job):
            typer.echo(f"{statement.as_string(None)};")


@app.command("register", short_help="Give a role the rights of a job.")
def register(
    role: Annotated[str, typer.Argument(help="A role that exists.")],
    job: Annotated[str, typer.Argument(help=_JOB)],
    every_run: Annotated[bool, typer.Option("--every-run", help="Let it read the rows of every run.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Give a role that exists the rights of a job, and take all others from it; run by the owner of the schema.

    It may read snapshots, decisions and labels of the profile's run, with --every-run of all runs. The last call counts.
    """
    import psycopg

    from ofp_platform.storage.postgres import connect
    from ofp_platform.storage.roles import EVERY_RUN, Job, register_role
    from ofp_platform.vocabulary.identity import pins_digest

    if job not in list(Job):
        raise CommandRefused(f"there is no job {job!r}; there are {', '.join(Job)}")
    environment = resolve(home, profile)
    runs = [EVERY_RUN] if every_run else [pins_digest(environment.load_profile().context_pins)]
    with connect(environment.dsn("owner")) as connection:
        try:
            register_role(connection, role, Job(job), runs)
        except psycopg.errors.UndefinedObject:
            raise CommandRefused(
                f"there is no role {role!r}: an administrator makes it (`ofp database sql` prints how)"
            ) from None
    line = f"{role} has the job {job}, for {'every run' if every_run else 'the run of the profile'}"
    print_facts({"role": role, "job": job, "runs": runs}, [line], as_json=json)


@app.command("roles", short_help="List the roles that have a job.")
def show_roles(json: AsJson = False, home: Home = None) -> None:
    """List each role that has a job, and how many runs it sees: name, job, runs."""
    from ofp_platform.storage.postgres import connect
    from ofp_platform.storage.roles import EVERY_RUN, registered_roles

    with connect(resolve(home).dsn("auditor")) as connection:
        roles = [{"role": name, "job": job, "runs": list(runs)} for name, job, runs in registered_roles(connection)]
    lines = table(
        ("role", "job", "runs"),
        [(row["role"], row["job"], "every run" if EVERY_RUN in row["runs"] else str(len(row["runs"]))) for row in roles],
    )
    print_facts(roles, lines, as_json=json)
