"""YAML files from outside, read into models: what is wrong is told with file, line or field, and what was expected there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node

from ofp_platform.vocabulary.json_text import holds_nul
from ofp_platform.vocabulary.raw_identifier import redact
from ofp_platform.vocabulary.text_file import read_text

AnyModel = TypeVar("AnyModel", bound=BaseModel)
_MOST_VALUES = 1_000_000
_NO_FIELDS = {"model_type", "dict_type", "model_attributes_type"}
_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*')>")
_DOUBLED_NAME = re.compile(r'found duplicate key "([A-Za-z_][A-Za-z0-9_]{0,62})"')


class YamlFault(Exception):
    """A file cannot be used; the text says which, where and why."""


class _Values(SafeConstructor):
    """Plain values. Times stay the text that was written, as in JSON: the field says whether there is such a day."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Raises: ConstructorError: the value is none of the type that its tag or its form says."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise ConstructorError(
                None, None, "a value that YAML does not have; write a text in quotes", node.start_mark
            ) from None


_Values.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def read_yaml(path: Path, advice: str = "") -> Any:
    """The content of a file. `advice`: what to do where it cannot be read, behind the reason.

    Raises:
        YamlFault: no such file, one that is too large, not UTF-8, or not YAML; with the line, and no value of the file.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Values
    try:
        content = yaml.load(read_text(path))
    except OSError as error:
        raise YamlFault(f"{path}: {error.strerror}{advice}") from None
    except UnicodeDecodeError:
        raise YamlFault(f"{path}: is not UTF-8 text") from None
    except DuplicateKeyError as error:
        name = _DOUBLED_NAME.search(str(error.problem))
        words = f"the field {redact(name.group(1))} is written twice" if name else "a field is written twice"
        raise YamlFault(f"{_place(path, error)}: {words}") from None
    except MarkedYAMLError as error:
        raise YamlFault(f"{_place(path, error)}: not YAML: {redact(str(error.problem or error.context))}") from None
    except YAMLError:
        raise YamlFault(f"{path}: not YAML: a character that YAML does not allow") from None
    except RecursionError:
        raise YamlFault(f"{path}: nested too deeply") from None
    if not _is_bounded(content):
        raise YamlFault(f"{path}: its aliases make more than {_MOST_VALUES:,} values of it: write out what they stand for")
    if holds_nul(content):
        raise YamlFault(f"{path}: a text holds U+0000, which cannot be stored")
    return content


def _is_bounded(content: Any) -> bool:
    """Whether there are no more values than a program that looks at each gets through, however often aliases repeat them."""
    pending, count = [content], 0
    while pending and count <= _MOST_VALUES:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return not pending


def _place(path: Path, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return str(path) if mark is None else f"{path}:{mark.line + 1}"


def model_of(path: Path, content: Any, model: type[AnyModel]) -> AnyModel:
    """The content of a file as a model.

    Raises:
        YamlFault: a field that is wrong, a line for each.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise YamlFault("\n".join(f"{path}: {words}" for words in fault_words(error, "the file"))) from None


def load_yaml(path: Path, model: type[AnyModel]) -> AnyModel:
    """Read and validate a file.

    Raises:
        YamlFault: see `read_yaml` and `model_of`.
    """
    return model_of(path, read_yaml(path), model)


def fault_words(error: ValidationError, whole: str) -> list[str]:
    """Field and message of each fault, without a value that was given; `whole`: a name for what is wrong as a whole."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return [f"{'.'.join(map(str, fault['loc'])) or whole}: {fault_message(fault)}" for fault in faults]


def fault_message(fault: ErrorDetails) -> str:
    """The words of a fault, without those of the language that the model is written in."""
    if fault["type"] in _NO_FIELDS:
        return "should be fields with their values"
    return _MEMBER.sub(r"\1", fault["msg"].removeprefix("Value error, "))
