"""From a checkpoint to a model folder that either is whole or does not exist."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx

from . import classify, full, manifest
from .checkpoint import Checkpoint
from .errors import ExportError
from .precision import PRECISIONS
from .weights import WeightFile

GRAPHS = {
    "classify": {"file": classify.FILE_NAME, "contract": classify.CONTRACT},
    "full": {"file": full.FILE_NAME, "contract": full.CONTRACT},
}


@dataclass(frozen=True)
class Options:
    """What the command line says about the result; None leaves the checkpoint's own word."""

    precision: str = "fp32"
    name: str | None = None
    license: str | None = None
    force: bool = False


def export(checkpoint: Checkpoint, out: Path, options: Options) -> bool:
    """Writes `out`; returns False if it was there already, intact and the same."""
    identity = manifest.Identity(
        name=options.name or checkpoint.name,
        license=options.license or checkpoint.license or "unknown",
        source=checkpoint.source,
        precision=options.precision,
        graphs=GRAPHS,
    )
    if out.exists() and not options.force:
        if manifest.is_intact(out, identity):
            return False
        raise ExportError(f"{out}: exists and is not an intact export of this source; --force replaces it")
    checkpoint.check_tensors()

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_graphs(checkpoint, partial, options.precision)
    _write_texts(checkpoint, partial)
    manifest.write_manifest(partial, identity)
    _swap(partial, out)
    return True


def _write_graphs(checkpoint: Checkpoint, folder: Path, precision_name: str) -> None:
    precision = PRECISIONS[precision_name]
    with WeightFile(folder) as weights:
        for build, name in ((classify.build_classify, classify.FILE_NAME), (full.build_full, full.FILE_NAME)):
            model = build(checkpoint, precision, weights)
            (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    for name in (classify.FILE_NAME, full.FILE_NAME):
        onnx.checker.check_model(str(folder / name))


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
