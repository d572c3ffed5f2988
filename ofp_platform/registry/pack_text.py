"""The text of a pack: YAML read into plain data, with the line of every field kept for the error messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, redact

MAX_SOURCE_CHARACTERS = 1_000_000
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp")}

Path = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class PackError:
    """One thing that is wrong with a pack. `line` counts from 1 (0: the whole file); `field` is like groups[0].name."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        index = f"{self.file}:{self.line}"
        return f"{index}: {self.field}: {self.message}" if self.field else f"{index}: {self.message}"


class PackErrors(Exception):
    """Everything that is wrong with a pack, in the order of the file."""

    def __init__(self, errors: list[PackError]) -> None:
        self.errors = sorted(set(errors))
        super().__init__("\n".join(str(error) for error in self.errors))


class PackText:
    """One pack file as plain data. `errors` collects the problems; no message ever shows a raw identifier."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.errors: list[PackError] = []
        self._lines: dict[Path, int] = {(): 1}
        self._yaml = YAML(typ="safe", pure=True)
        self._node_ids: set[int] = set()
        self.data: Any = self._read(text)

    def report(self, path: Path, message: str) -> None:
        """Record an error at the nearest field that the file has."""
        self.errors.append(PackError(self.file, self._line(path), redact(field_text(path)), redact(message)))

    def raise_if_wrong(self) -> None:
        """Raises:
        PackErrors: something was reported.
        """
        if self.errors:
            raise PackErrors(self.errors)

    def raise_if_not_yaml(self) -> None:
        """Raises:
        PackErrors: there is no data to look at.
        """
        if self.data is None:
            self.raise_if_wrong()

    def _line(self, path: Path) -> int:
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def _read(self, text: str) -> Any:
        if len(text) > MAX_SOURCE_CHARACTERS:
            self.report((), f"longer than {MAX_SOURCE_CHARACTERS} characters")
            return None
        try:
            node = self._yaml.compose(text)
            return None if node is None else self._plain(node, ())
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or error.context or "not YAML"
            self.errors.append(PackError(self.file, mark.line + 1 if mark else 1, "", redact(f"not YAML: {problem}")))
        except RecursionError:
            self.report((), "nested too deeply")
        except YAMLError:
            self.report((), "not YAML: a character that YAML does not allow")
        return None

    def _plain(self, node: Node, path: Path) -> Any:
        if id(node) in self._node_ids:
            self.errors.append(
                PackError(self.file, node.start_mark.line + 1, redact(field_text(path)), "aliases are not used in packs")
            )
            return None
        self._node_ids.add(id(node))
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        raise TypeError(f"{type(node).__name__} is no kind of YAML node")

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.errors.append(PackError(self.file, line, redact(field_text(path)), "a field name must be a plain word"))
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in data:
                message = f"written twice; first on line {self._lines[here]}"
                self.errors.append(PackError(self.file, line, redact(field_text(here)), message))
                continue
            self._lines[here] = line
            if holds_raw_identifier(key):
                self.report(here, "a raw identifier (a card number) may not stand in a pack")
            data[key] = self._plain(value_node, here)
        return data

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if node.tag not in _SCALAR_TAGS:
            self.report(path, "YAML tags are not used in packs")
            return None
        try:
            value = self._yaml.constructor.construct_object(node)
        except (YAMLError, ValueError):
            value = str(node.value)
        if isinstance(value, date):
            value = str(node.value)
        if holds_raw_identifier(str(node.value)) or holds_raw_identifier(str(value)):
            self.report(path, "a raw identifier (a card number) may not stand in a pack")
        return value


def field_text(path: Path) -> str:
    """('groups', 0, 'name') as groups[0].name."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text
