"""Hold the names and docstrings of the package to plain words: `words_check.py [--list] [FOLDER]`.

Three counts, each against a bound: docstrings that begin with "What", bindings of the name `found`, and bare words. A bare
word is a name of one word that says what happened to a thing and not which thing: a participle (`chosen`, `folded`) or a
pronoun (`one`, `mine`). httpx, litestar and attrs have 0.5% to 0.6% of them. `--list` names every place, for whoever mends them.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_WHAT_DOCSTRINGS = 19
MOST_FOUND = 19
MOST_BARE_PERCENT = 1.5
PRONOUNS = frozenset({"one", "mine", "own", "theirs", "what", "nothing", "something", "everything"})
IRREGULAR_PARTICIPLES = frozenset(
    [
        "begun",
        "broken",
        "brought",
        "built",
        "chosen",
        "come",
        "done",
        "drawn",
        "found",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "led",
        "left",
        "lost",
        "made",
        "met",
        "said",
        "seen",
        "sent",
        "shown",
        "sought",
        "spent",
        "spoken",
        "struck",
        "taken",
        "taught",
        "thought",
        "thrown",
        "told",
        "torn",
        "understood",
        "won",
        "written",
    ]
)
NO_PARTICIPLES = frozenset({"bed", "breed", "embed", "feed", "need", "red", "seed", "shed", "speed", "weed"})


@dataclass(frozen=True)
class Binding:
    """One place where a name is bound."""

    path: Path
    line: int
    name: str


def is_bare(name: str) -> bool:
    """Whether a name is a participle or a pronoun and nothing else. Constants and classes are no subject of this."""
    word = name.strip("_")
    if not word.isalpha() or not word.islower():
        return False
    regular = word.endswith("ed") and len(word) > 3 and word not in NO_PARTICIPLES
    return regular or word in IRREGULAR_PARTICIPLES or word in PRONOUNS


def bindings(path: Path, tree: ast.Module) -> Iterator[Binding]:
    """Every name that a module binds: functions, classes, parameters, variables, attributes. Not `self`, `cls`, `_`, dunders."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.arg(arg=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case _:
                continue
        if name not in ("self", "cls", "_") and not name.startswith("__"):
            yield Binding(path, node.lineno, name)


def what_docstrings(path: Path, tree: ast.Module) -> Iterator[Binding]:
    """Every docstring whose first word is "What"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            if text.split(maxsplit=1)[:1] == ["What"]:
                yield Binding(path, getattr(node, "lineno", 1), text.partition("\n")[0])


def main() -> int:
    """Print the counts; 1 where one is past its bound, 2 where there is nothing to count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "ofp_platform")
    parser.add_argument("--list", action="store_true", help="name every place that counts")
    arguments = parser.parse_args()
    names: list[Binding] = []
    what: list[Binding] = []
    for path in sorted(arguments.folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        names += bindings(path, tree)
        what += what_docstrings(path, tree)
    if not names:
        print(
            f"{arguments.folder}: no Python file binds a name here, so there is nothing to hold to plain words", file=sys.stderr
        )
        return 2
    found = [binding for binding in names if binding.name == "found"]
    bare = [binding for binding in names if is_bare(binding.name)]
    percent = 100 * len(bare) / len(names)
    if arguments.list:
        for place in [*what, *bare]:
            print(f"{place.path}:{place.line}: {place.name}")
    print(f'docstrings that begin with "What": {len(what)} (at most {MOST_WHAT_DOCSTRINGS})')
    print(f"bindings of `found`: {len(found)} (at most {MOST_FOUND})")
    print(f"bare words: {len(bare)} of {len(names)} names, {percent:.2f}% (below {MOST_BARE_PERCENT}%)")
    if len(what) > MOST_WHAT_DOCSTRINGS or len(found) > MOST_FOUND or percent >= MOST_BARE_PERCENT:
        print("too many: `python .ci/words_check.py --list` names the places", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
