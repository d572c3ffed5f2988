"""Functions of many parameters: which there are, and why each stays. A new one takes an object, or comes onto the list."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "ofp_platform"
MANY = 10
LOOP = "a loop that Python calls: numba looks at a named tuple anew in each call (measured; see kernel/native.py)"
INLINED = "takes the arrays of the loops that call it, which have them one by one; a tuple would be made for this call alone"
OPTIONS = "the options of a command: typer reads them off the signature"
FIELDS = "each parameter is a field of one object, by its name, and the function is what makes that object"
PARTS = "the parts of the service, each by its name; one place makes it"
SETTINGS = "settings of several backends, of which each takes its own"
CALLBACKS = "four of them are told what happens, and whoever calls gives those that it listens to"
STAY = {
    "api/app.py __init__": PARTS,
    "cli/files/world_commands.py make": OPTIONS,
    "cli/installation/installation_commands.py init": OPTIONS,
    "cli/installation/principal_commands.py add": OPTIONS,
    "cli/offline/entity_commands.py from_entities": OPTIONS,
    "cli/offline/model_commands.py train_models": OPTIONS,
    "cli/online/features.py get_features": OPTIONS,
    "cli/online/ingress_commands.py serve": OPTIONS,
    "kernel/answer_form.py body": FIELDS,
    "kernel/answer_text.py _render": LOOP,
    "kernel/answer_text.py _render_whole": LOOP,
    "kernel/columns.py _slide_keys": LOOP,
    "kernel/known_distinct.py _count_known": LOOP,
    "kernel/known_rows.py touch_known": LOOP,
    "kernel/known_windows.py _evaluate_known": LOOP,
    "kernel/whole_windows.py _of_known": LOOP,
    "kernel/named_values.py _count": LOOP,
    "kernel/partial_aggregates.py _evaluate": LOOP,
    "kernel/sliding.py slide_slots": INLINED,
    "kernel/window_loops.py _slots": INLINED,
    "kernel/window_loops.py _touches": INLINED,
    "kernel/window_loops.py answer": LOOP,
    "kernel/window_loops.py answer_whole": INLINED,
    "log/connect.py connect_log": SETTINGS,
    "online/projecting/continuous.py run_continuous": CALLBACKS,
    "online/serving/reader.py __init__": PARTS,
    "online/state/chunk_codec.py _write": LOOP,
    "scoring/loops.py score_trees": LOOP,
    "scoring/loops.py share_trees": LOOP,
    "vocabulary/offline/dataset_manifest.py manifest_of": FIELDS,
    "vocabulary/snapshot_hash.py hashed_object": FIELDS,
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_functions_of_many_parameters_are_explained_and_no_other_is() -> None:
    many = set()
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) >= MANY:
                many.add(f"{module.relative_to(PACKAGE).as_posix()} {node.name}")
    assert many == set(STAY)
