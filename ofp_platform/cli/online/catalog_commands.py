"""`ofp catalog`: definitions of feature groups, their owners and tags, and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from pathlib import Path

    from ofp_platform.vocabulary.catalogue import Catalogue, CatalogueGroup

app = typer.Typer(help="Show what the features mean, who owns them and who reads them.", no_args_is_help=True)
_WIDTH = 78


@app.command("list", short_help="List the feature groups.")
def show_list(
    tag: Annotated[
        str | None, typer.Option("--tag", help="Only groups with this tag, or a feature of theirs.", show_default=False)
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Only groups in whose names or words this text stands.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """List the groups of the profile's pack: key type, number of features, owner, how many readers, and the description."""
    catalogue = _catalogue(home, profile)
    groups = [group for group in catalogue.groups if _fits(group, tag, search)]
    facts = catalogue.model_copy(update={"groups": tuple(groups)}).model_dump(mode="json", exclude_none=True)
    lines = [line for group in groups for line in _group_lines(group, readers_known=catalogue.readers_known)]
    print_facts(facts, lines or ["no group of the pack is like that"], as_json=json)


def _group_lines(group: CatalogueGroup, *, readers_known: bool) -> Iterator[str]:
    readers = f"{len(group.read_by)} readers" if readers_known else "readers not counted"
    about = f"{group.key_type.value}, {len(group.features)} features, {readers}"
    about += f", {group.owner}" if group.owner else ""
    yield from item(f"{group.group_name}:{group.group_version}", about)
    for text in wrap(group.description, _WIDTH - 2):
        yield f"  {text}"


@app.command(short_help="Show one group, feature by feature.")
def show(
    group: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="Group version.", show_default=False)],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Show a group: what each feature is computed of, its type, its words, and the datasets, decision rules and models that
    read the group."""
    from ofp_platform.registry.shape import suggestion

    catalogue = _catalogue(home, profile)
    groups = {f"{entry.group_name}:{entry.group_version}": entry for entry in catalogue.groups}
    if group not in groups:
        raise CommandRefused(f"the pack has no group {group}{suggestion(group, groups)}")
    shown_group = groups[group]
    facts = shown_group.model_dump(mode="json", exclude_none=True)
    print_facts(facts, _lines(shown_group, readers_known=catalogue.readers_known), as_json=json)


def _lines(group: CatalogueGroup, *, readers_known: bool) -> Iterator[str]:
    from ofp_platform.registry.catalogue import definition

    yield f"{group.group_name}:{group.group_version}  of the {group.key_type.value}, stale after {group.ttl_seconds} s"
    yield from (f"  {text}" for text in wrap(group.description, _WIDTH - 2))
    for name, text in (("owner", group.owner or "nobody"), ("tags", ", ".join(group.tags)), ("digest", group.content_digest)):
        if text:
            yield f"  {name:<7} {text}"
    for field, kind in group.request_context.items():
        yield f"  needs   request_context {field} ({kind})"
    for feature in group.features:
        yield ""
        yield f"  {feature.name}  {feature.type}"
        for text in wrap(definition(feature), _WIDTH - 4):
            yield f"    {text}"
        for text in wrap(feature.description, _WIDTH - 4):
            yield f"    {text}"
        if feature.tags:
            yield f"    tags {', '.join(feature.tags)}"
    yield ""
    if not readers_known:
        yield "  who reads it was not looked at: more is published than is looked at in one go"
    elif not group.read_by:
        yield "  nobody reads it: no dataset, model or decision rule that is recorded"
    for reader in group.read_by:
        yield f"  read by {reader.kind.replace('_', ' ')} {reader.name} {reader.reference}"


def _fits(group: CatalogueGroup, tag: str | None, search: str | None) -> bool:
    if tag is not None and tag not in group.tags and not any(tag in feature.tags for feature in group.features):
        return False
    words = [group.group_name, group.description, *(text for entry in group.features for text in (entry.name, entry.description))]
    return search is None or any(search.lower() in word.lower() for word in words)


def _catalogue(home: Path | None, profile_source: str | None) -> Catalogue:
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.registry.catalogue import catalogue
    from ofp_platform.registry.compile import compile_pack
    from ofp_platform.storage.feature_readers import FeatureReaders, TooManyReaders

    with resolve(home, profile_source).open_plane_without_log("auditor") as plane:
        registry = compile_pack(profile_pack(plane.profile))
        pins = plane.profile.context_pins
        try:
            readers = FeatureReaders(plane.objects, plane.pool, pins).of_groups(registry.digest)
        except TooManyReaders:
            readers = None
        return catalogue(registry, pins, readers)
