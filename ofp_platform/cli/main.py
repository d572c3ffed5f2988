"""`ofp`: the program. Each group of commands is a module of its own; what a command needs is imported when it runs.

(The kernel and the clients behind it take a second or two to import, and `ofp --help` should not.)
"""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.demo import command as demo
from ofp_platform.cli.files import import_commands, pack_commands, world_commands
from ofp_platform.cli.installation import (
    access_commands,
    backup_commands,
    database_commands,
    doctor,
    installation_commands,
    principal_commands,
    profile_commands,
    retention_commands,
)
from ofp_platform.cli.offline import (
    archive_commands,
    build_commands,
    case_commands,
    dataset_commands,
    entity_commands,
    facts_commands,
    governance_commands,
    id_commands,
    intent_commands,
    label_commands,
    model_commands,
    parity_commands,
)
from ofp_platform.cli.online import (
    action_commands,
    audit_commands,
    audit_key_commands,
    bundle_commands,
    catalog_commands,
    decide,
    decider_commands,
    decision_commands,
    failure_commands,
    features,
    identity_commands,
    ingress_commands,
    log_commands,
    mcp_commands,
    pack_operation_commands,
    posture_commands,
    projection_commands,
    projector_commands,
    quarantine_commands,
    record_commands,
    registry_commands,
    run_commands,
    serve,
    snapshot_commands,
)
from ofp_platform.cli.program_version import show_version
from ofp_platform.cli.services import command as service_commands
from ofp_platform.cli.stamped_output import stamp_output
from ofp_platform.cli.terminal.refusals import RefusingGroup
from ofp_platform.cli.up import command as up

app = typer.Typer(
    name="ofp",
    help="A feature plane for real-time fraud decisions: every served feature vector can be proven.",
    cls=RefusingGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and the code release.")
    ] = False,
) -> None:
    """A feature plane for real-time fraud decisions: every served feature vector can be proven."""


app.command("demo", short_help="Run the whole way: payments, proven feature vectors, a training set, models.")(demo.demo)
app.command("up", short_help="Start the whole plane on one machine, until Ctrl-C.")(up.up)
app.command("doctor", short_help="Check an installation and say what to do about each fault.")(doctor.doctor)
app.command("init", short_help="Write a profile to start from.")(installation_commands.init)
app.command("migrate", short_help="Bring the schema of the database up to date.")(installation_commands.migrate)
app.command("backup", short_help="Copy the home into one folder, while it is in use.")(backup_commands.backup)
app.command("restore", short_help="Restore a home from a backup, and compare it with the archive.")(backup_commands.restore)
app.command("retention", short_help="Remove what the retention policy no longer keeps.")(retention_commands.retention)
app.command("plan", short_help="Say what a pack would change if it went live, and what that would cost.")(
    pack_operation_commands.plan
)
app.command("apply", short_help="Build a planned pack beside the live one, compare, make it live.")(pack_operation_commands.apply)
app.command("rollback", short_help="Make live again what the last `ofp apply` retired.")(pack_operation_commands.rollback)
app.command("serve", short_help="Start the HTTP service.")(serve.serve)
app.add_typer(principal_commands.app, name="principal")
app.add_typer(profile_commands.app, name="profile")
app.add_typer(pack_commands.app, name="pack")
app.add_typer(world_commands.app, name="world")
app.add_typer(run_commands.app, name="run")
app.add_typer(posture_commands.app, name="posture")
app.add_typer(database_commands.app, name="database")
app.add_typer(access_commands.app, name="access")
app.add_typer(service_commands.app, name="services")
app.add_typer(registry_commands.app, name="registry")
app.add_typer(catalog_commands.app, name="catalog")
app.add_typer(projector_commands.app, name="projector")
projector_commands.app.command("failures", short_help="List records that were not applied, and why.")(failure_commands.failures)
projector_commands.app.command("anomalies", short_help="List ids that came again with another payload.")(
    failure_commands.anomalies
)
app.add_typer(projection_commands.app, name="projection")
app.add_typer(features.app, name="features")
app.add_typer(snapshot_commands.app, name="snapshot")
log_commands.app.command("import", short_help="Append the rows of a file of your own.")(import_commands.import_events)
app.add_typer(log_commands.app, name="log")
log_commands.app.command("show", short_help="Show one record, without the values of its payload.")(record_commands.show)
app.add_typer(identity_commands.app, name="identity")
app.add_typer(ingress_commands.app, name="ingress")
app.add_typer(quarantine_commands.app, name="quarantine")
app.add_typer(archive_commands.app, name="archive")
app.add_typer(facts_commands.app, name="facts")
app.add_typer(governance_commands.app, name="governance")
audit_commands.app.add_typer(audit_key_commands.app, name="key")
app.add_typer(audit_commands.app, name="audit")
label_commands.app.command("append", short_help="Append the labels of a file of your own.")(import_commands.append_labels)
app.add_typer(label_commands.app, name="labels")
app.command("decide", short_help="Run the example decision service over the newest events.")(decide.decide)
app.add_typer(decider_commands.app, name="decider")
app.add_typer(decision_commands.app, name="decision")
app.add_typer(bundle_commands.app, name="bundle")
app.add_typer(action_commands.app, name="action")
app.add_typer(case_commands.app, name="case")
app.add_typer(id_commands.app, name="id")
app.add_typer(intent_commands.app, name="intent")
app.add_typer(build_commands.app, name="build")
dataset_commands.app.command("from-entities", short_help="Build a dataset whose rows are a file of keys and times.")(
    entity_commands.from_entities
)
app.add_typer(dataset_commands.app, name="dataset")
app.add_typer(parity_commands.app, name="parity")
app.add_typer(model_commands.app, name="model")
app.add_typer(mcp_commands.app, name="mcp")

if __name__ == "__main__":
    stamp_output()
    app()
