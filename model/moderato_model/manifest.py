"""`manifest.json`: what a model folder is and the digest of every file in it.

It is written last. A folder without one is not a model folder, whatever else it holds.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from . import EXPORTER_NAME, EXPORTER_VERSION
from .checkpoint import Source, sha256_of

FILE_NAME = "manifest.json"
SCHEMA = "moderato/model-manifest/1"
UNSEALED = "0" * 64


@dataclass(frozen=True)
class Identity:
    """The part of a manifest that does not depend on the files."""

    name: str
    license: str
    source: Source
    precision: str
    graphs: dict[str, dict[str, str]]

    def as_json(self) -> dict:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "license": self.license,
            "source": {"kind": self.source.kind, "ref": self.source.ref, "sha256": self.source.sha256},
            "precision": self.precision,
            "graphs": self.graphs,
            "exporter": {"name": EXPORTER_NAME, "version": EXPORTER_VERSION},
        }


def describe_files(folder: Path) -> list[dict]:
    """Path, digest and size of every file but the manifest, sorted by path."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [
        {"path": path, "sha256": sha256_of(folder / path), "bytes": (folder / path).stat().st_size}
        for path in paths
        if path != FILE_NAME
    ]


def write_manifest(folder: Path, identity: Identity) -> None:
    """Describes the folder as it is now; the manifest appears whole or not at all."""
    text = json.dumps(
        {"digest": UNSEALED} | identity.as_json() | {"files": describe_files(folder)}, indent=2, ensure_ascii=False
    )
    text += "\n"
    # The manifest's own digest is that of its text with zeros in the digest's place.
    text = text.replace(UNSEALED, hashlib.sha256(text.encode("utf-8")).hexdigest())
    # Outside the listing above, so that a file left by an interrupted run is never listed.
    partial = folder.parent / f".{folder.name}.{FILE_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE_NAME)


def is_intact(folder: Path, identity: Identity) -> bool:
    """Whether the folder is what this exporter would write for `identity`, byte for byte."""
    try:
        manifest = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(manifest, dict):
        return False
    files, _ = manifest.pop("files", None), manifest.pop("digest", None)
    return manifest == identity.as_json() and files == describe_files(folder)
