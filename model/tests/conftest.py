"""Folders that several tests read; each is exported once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from moderato_model.checkpoint import expected_tensors
from moderato_model.export import Options, export
from moderato_model.tiny import tiny_checkpoint
from reference import Llama
from sessions import Folder


@pytest.fixture(scope="session")
def tiny():
    """The tiny checkpoint itself, before any export."""
    return tiny_checkpoint(7)


@pytest.fixture(scope="session")
def tiny_reference(tiny):
    return Llama(tiny.config, {name: tiny.read(name) for name in expected_tensors(tiny.shape)})


@pytest.fixture(scope="session")
def tiny_folders(tiny, tmp_path_factory):
    """precision -> the tiny model's folder, exported and loaded at first use."""
    folders = {}

    def folder(precision: str) -> Folder:
        if precision not in folders:
            out = tmp_path_factory.mktemp("tiny") / precision
            export(tiny, out, Options(precisions=(precision,)))
            folders[precision] = Folder(out)
        return folders[precision]

    return folder
