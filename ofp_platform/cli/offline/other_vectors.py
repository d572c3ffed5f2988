"""Vectors that were not served, of a plane that is open: with what is known now, or with the features of another pack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.decisions.deciding import ReadyBundle
    from ofp_platform.offline.parity.vector_variants import VectorVariants
    from ofp_platform.online.plane import Plane
    from ofp_platform.registry.compile import CompiledRegistry


class PackUnfit(ValueError):
    """A pack by which nothing can be computed instead; the text says why, and what to do."""


def other_registry(plane: Plane, source: str, bundle: ReadyBundle | None, *, files: bool = False) -> CompiledRegistry:
    """The pack that defines the features instead: a shipped one by its name, a published one by its digest or, with `files`, a
    file. `bundle`: that decides on them instead; None: those that decided.

    Raises:
        PackUnfit: there is no such pack; it redefines a published group version; the bundle reads what it does not have.
        PackErrors: everything that is wrong with the file.
    """
    from ofp_platform.offline.parity.other_pack import OtherPack
    from ofp_platform.online.state.projection import published_groups
    from ofp_platform.registry import history
    from ofp_platform.registry.compile import compile_pack
    from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, load_pack_file, shipped_pack
    from ofp_platform.storage.published_packs import pack_content
    from ofp_platform.vocabulary.loop.posture import Mode

    with plane.pool.connection() as connection:
        content = pack_content(connection, source) if is_digest(source) else None
        group_digests = published_groups(connection)
    if source in SHIPPED_PACKS:
        pack = shipped_pack(source)
    elif content is not None:
        pack = load_pack(content, source)
    elif is_digest(source):
        raise PackUnfit(f"no pack of digest {source} is published here")
    elif files:
        pack = load_pack_file(Path(source))
    else:
        shipped_names = ", ".join(SHIPPED_PACKS)
        raise PackUnfit(f"{source[:100]}: a pack is named by the digest of a published one (64 hex digits), or {shipped_names}")
    if refusals := history.check(group_digests, pack):
        raise PackUnfit("\n".join(str(refusal) for refusal in refusals))
    registry = compile_pack(pack)
    if bundle is not None and (faults := OtherPack(registry).faults(bundle.reads_under(Mode.NORMAL))):
        name = f"bundle {bundle.ref.bundle_name} ({bundle.ref.digest[:12]})"
        raise PackUnfit(f"{name} cannot decide on its features: {'; '.join(faults)}")
    return registry


@contextmanager
def other_vectors(
    plane: Plane, folder: Path, *, as_known_now: bool, pack: CompiledRegistry | None
) -> Iterator[VectorVariants | None]:
    """A rebuilder of the vectors of the run, as long as it is needed; None: they are taken as they were served. `folder`: home of
    unfinished files.

    Raises:
        BuildRefused: as `run_variants`.
    """
    if not as_known_now and pack is None:
        yield None
        return
    from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.offline.runs.run_variants import VariantsWanted, run_variants

    context_log = plane.known_context_log()
    build_context = BuildContext(plane.pool, plane.log, plane.objects, folder / "scratch", context_log=context_log)
    variants_wanted, profile = VariantsWanted(as_known_now, pack), plane.profile
    with run_variants(build_context, profile.context_pins, RunPolicies.of(profile), variants_wanted) as variants:
        yield variants
