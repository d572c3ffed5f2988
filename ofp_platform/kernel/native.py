"""How the kernel's loops become machine code: numba without Python objects, bounds checks or threads, kept on disk.

Numba's own stamp on a kept function is the text of that function's file alone. Here the loops of one file are inlined
into those of another and constants of other packages are compiled in, so the stamp is the text of the whole package and of the
modules that those constants come from: an edit anywhere in them recompiles all of it.

A loop that Python calls takes its arrays one by one, ten and more of them. Numba takes a named tuple of arrays, too, but looks at
it anew in each call: five arrays cost 1.1 us so and 0.4 us one by one, where the whole answer for a key takes 8 us. And a
signature that names a tuple takes read-only arrays or writable ones, not both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.core.compiler_lock import global_compiler_lock

F = TypeVar("F", bound=Callable[..., Any])
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Read-only in the signature means: the caller's array may be either, and is not written to.
IN1 = types.Array(types.int64, 1, "C", readonly=True)
IN2 = types.Array(types.int64, 2, "C", readonly=True)
IN3 = types.Array(types.int64, 3, "C", readonly=True)
OUT1 = types.Array(types.int64, 1, "C")
OUT2 = types.Array(types.int64, 2, "C")
OUT3 = types.Array(types.int64, 3, "C")
INTEGER = types.int64
NOTHING = types.void


CONSTANTS_FROM = (
    "registry/aggregations.py",
    "registry/layout.py",
    "registry/text_words.py",
    "vocabulary/canonical.py",
    "vocabulary/times.py",
)
"""The modules outside the kernel whose constants its compiled loops hold."""


@cache
def _source_digest() -> str:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(package.glob("*.py")), *(package.parent / name for name in CONSTANTS_FROM)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_declared: list[Callable[[], None]] = []


def load_loops() -> None:
    """Load every loop of the imported modules now: a server does so before it answers (and before it forks). Safe for threads."""
    while True:
        try:
            load = _declared.pop()
        except IndexError:  # that was the last
            return
        load()


def native(signature: Any = None) -> Callable[[F], F]:
    """Compile a function: with a signature for it only, when it is first called (or read from disk), else where it is inlined.

    Reading all loops from disk takes 0.4 s, and a process calls few of them: see `load_loops`. Where no folder can be written
    for the compiled code (a read-only image without a home), it is compiled anew in each process; set NUMBA_CACHE_DIR to keep it.
    """

    def compile_it(function: F) -> F:
        dispatcher: Any = numba.njit(boundscheck=False, nogil=True, error_model="numpy")(function)
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # no folder to keep it in
            pass
        else:
            # Numba has no public way to add to the stamp of one package alone (NUMBA_CACHE_LOCATOR_CLASSES is the whole
            # process's). pyproject.toml bounds numba, and test_native names every private part that is used here.
            file = dispatcher._cache._cache_file
            file._source_stamp = (file._source_stamp, _source_digest())
        if signature is not None:
            _compile_when_called(dispatcher, signature)
        return dispatcher  # type: ignore[no-any-return]

    return compile_it


def _compile_when_called(dispatcher: Any, signature: Any) -> None:
    """Let the first call (from Python or from a loop that is being compiled) compile the signature and no other."""
    compile_signature = dispatcher.compile

    def load() -> None:
        with global_compiler_lock:
            if not dispatcher.signatures:
                compile_signature(signature)
                dispatcher.disable_compile()

    def compile_first(argument_types: tuple[Any, ...]) -> Any:
        load()
        (types_of_signature,) = dispatcher.signatures
        pairs = list(zip(argument_types, types_of_signature, strict=False))
        if len(argument_types) != len(types_of_signature) or None in (dispatcher.typingctx.can_convert(*pair) for pair in pairs):
            raise TypeError(f"{dispatcher.py_func.__name__} takes {types_of_signature}, not {argument_types}")
        return dispatcher.overloads[types_of_signature].entry_point

    dispatcher.compile = compile_first
    _declared.append(load)
