"""YAML files from outside, read into models: what is wrong is told with file, line or field, and what was expected there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ofp_platform.vocabulary.text_file import read_text

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class YamlFault(Exception):
    """A file cannot be used; the text says which, where and why."""


def read_yaml(path: Path, advice: str = "") -> Any:
    """The content of a file. `advice`: what to do where it cannot be read, behind the reason.

    Raises:
        YamlFault: no such file, or not YAML.
    """
    try:
        return YAML(typ="safe").load(read_text(path))
    except OSError as error:
        raise YamlFault(f"{path}: {error.strerror}{advice}") from None
    except (UnicodeDecodeError, YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlFault(f"{path if mark is None else f'{path}:{mark.line + 1}'}: not YAML") from None


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
    return [f"{'.'.join(map(str, fault['loc'])) or whole}: {fault['msg']}" for fault in faults]
