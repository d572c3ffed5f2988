"""docs/cli.md and docs/profile.md, made from program and models: `python -m ofp_platform.cli.reference [--check]`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click
from typer.main import get_command

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.main import app
from ofp_platform.vocabulary.profile import Profile

FILE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
_HEAD = """\
<!-- made from the program by `python -m ofp_platform.cli.reference`; a test compares the two -->

"""
_PROFILE_HEAD = """\
<!-- made from the models by `python -m ofp_platform.cli.reference`; a test compares the two -->

# The profile

A profile is one YAML file that says what an operator declares about a deployment: `ofp init` writes one with comments, `ofp
doctor` checks it. An unknown field is refused, and so is a card number anywhere. It holds no secret.
[Tiers](operating.md#tiers-the-same-profile-elsewhere) lie over it. A field with a variable is wiring: it names where
something is, and the variable comes first. Durations are a whole number and one of `us`, `ms`, `s`, `m`, `h`, `d`. The shape
as JSON Schema: `contracts/profile_v0.schema.json`.

"""
_VARIABLES_HEAD = """\
## The environment

An empty variable counts as not set. Commands have options for some of them (`--home`, `--profile`), which come first.
Credentials of S3 and Kinesis are those of the AWS tools (`AWS_ACCESS_KEY_ID`, ...); those of PostgreSQL stand in the DSN, or
in the `passfile` that it names. How Kafka is reached stands in variables of its own ([Kafka](kafka.md)).

| variable | default | |
|---|---|---|"""


def reference() -> str:
    """The reference of all commands as Markdown."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="ofp")
    return _HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def profile_reference() -> str:
    """Every field of a profile, with default, meaning and environment variable, and every variable, as Markdown."""
    variables = {name: f"OFP_{name.upper()}" for name in Environment.model_fields}
    sections = [_PROFILE_HEAD + _field_table(Profile, variables)]
    for name, field in Profile.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == Profile.__module__:
            sections.append(f"## `{name}`\n\n{_sentence(model)}\n\n{_field_table(model, {})}")
    rows = (
        f"| `{variables[name]}` | {_default(field)} | {field.description} |" for name, field in Environment.model_fields.items()
    )
    sections.append("\n".join([_VARIABLES_HEAD, *rows]))
    return "\n\n".join(sections) + "\n"


def _field_table(model: type[BaseModel], variables: Mapping[str, str]) -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {_meaning(field)} | {f'`{variables[name]}`' if name in variables else ''} |"
        for name, field in model.model_fields.items()
        if name != "profile"
    ]
    return "\n".join(["| field | default | | variable |", "|---|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if isinstance(value, BaseModel):
        return "below"
    if value is None or value == {}:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    model = field.annotation
    if isinstance(model, type) and issubclass(model, BaseModel) and field.description is None:
        return f"{_sentence(model)}"
    return str(field.description).replace("|", "\\|")


def _sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


FILES: dict[Path, Callable[[], str]] = {FILE: reference, FILE.with_name("profile.md"): profile_reference}


def main(arguments: list[str]) -> int:
    """Write the files, or with --check say which are not what would be written."""
    if "--check" not in arguments:
        for file, content in FILES.items():
            file.write_text(content(), encoding="utf-8")
        return 0
    old_files = [file for file, content in FILES.items() if file.read_text(encoding="utf-8") != content()]
    for file in old_files:
        print(f"{file} is not what the program says: python -m ofp_platform.cli.reference", file=sys.stderr)
    return 1 if old_files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
