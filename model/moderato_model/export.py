"""From a checkpoint to a model folder that either is whole or does not exist."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx

from . import classify, draft, full, fused, manifest
from .checkpoint import Checkpoint
from .errors import ExportError
from .precision import PRECISIONS
from .weights import WeightFile


@dataclass(frozen=True)
class Options:
    """What the command line says about the result; None leaves the checkpoint's own word."""

    # The first is the folder's own; each further one adds a graph for each task.
    precisions: tuple[str, ...] = ("fp32",)
    # What the folder is for: each task has a graph of its own.
    tasks: tuple[str, ...] = ("classify",)
    name: str | None = None
    license: str | None = None
    force: bool = False


def export(checkpoint: Checkpoint, out: Path, options: Options) -> bool:
    """Writes `out`; returns False if it was there already, intact and the same."""
    identity = manifest.Identity(
        name=options.name or checkpoint.name,
        license=options.license or checkpoint.license or "unknown",
        source=checkpoint.source,
        precision=options.precisions[0],
        graphs=_graphs(options),
    )
    if out.exists() and not options.force:
        if manifest.is_intact(out, identity):
            return False
        raise ExportError(f"{out}: exists and is not an intact export of this source; --force replaces it")
    _check_precisions(options)
    checkpoint.check_tensors()

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_graphs(checkpoint, partial, options)
    _write_texts(checkpoint, partial)
    manifest.write_manifest(partial, identity)
    _swap(partial, out)
    return True


# A task's graph: its contract, and who builds it from floats and from int8.
TASKS = {
    "classify": (classify.CONTRACT, classify.build_classify, fused.build_fused),
    "draft": (draft.CONTRACT, draft.build_draft, draft.build_fused_draft),
}


def _check_precisions(options: Options) -> None:
    precisions = options.precisions
    own, *further = precisions
    for name in further:
        if precisions.count(name) > 1 or PRECISIONS[name].dtype != PRECISIONS[own].dtype:
            raise ExportError(
                f"--precision {','.join(precisions)}: {name} cannot stand beside {own} in one folder; "
                "only fp32,int8 can, because int8 keeps norms and embedding in fp32"
            )


def _graphs(options: Options) -> dict[str, dict[str, str]]:
    own, *further = options.precisions
    graphs = {task: _graph(task, task, own) for task in options.tasks}
    graphs["full"] = {"file": full.FILE_NAME, "contract": full.CONTRACT, "precision": own}
    for name in further:
        graphs |= {f"{task}.{name}": _graph(task, f"{task}.{name}", name) for task in options.tasks}
    return graphs


def _graph(task: str, role: str, precision: str) -> dict[str, str]:
    return {"file": f"{role}.onnx", "contract": TASKS[task][0], "precision": precision}


def _write_graphs(checkpoint: Checkpoint, folder: Path, options: Options) -> None:
    graphs = _graphs(options).values()
    with WeightFile(folder) as weights:
        for graph in graphs:
            model = _builder(graph)(checkpoint, PRECISIONS[graph["precision"]], weights)
            (folder / graph["file"]).write_bytes(model.SerializeToString(deterministic=True))
    for graph in graphs:
        onnx.checker.check_model(str(folder / graph["file"]))


def _builder(graph: dict[str, str]):
    for contract, of_floats, of_int8 in TASKS.values():
        if contract == graph["contract"]:
            return of_int8 if graph["precision"] == "int8" else of_floats
    return full.build_full


def _write_texts(checkpoint: Checkpoint, folder: Path) -> None:
    tokenizer = checkpoint.make_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    for name, content in (("config.json", checkpoint.config), ("tokenizer_config.json", tokenizer.config)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def _swap(partial: Path, out: Path) -> None:
    """Renames the finished folder into place; a folder cannot replace another, so an old one steps aside first."""
    replaced = out.with_name(out.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        os.rename(out, replaced)
    os.rename(partial, out)
    shutil.rmtree(replaced, ignore_errors=True)
