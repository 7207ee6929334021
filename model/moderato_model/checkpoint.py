"""The common face of every source: sizes, tensors by Hugging Face name, tokenizer, provenance."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ExportError
from .shape import LlamaShape

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Source:
    """Where a checkpoint came from, as the manifest records it."""

    kind: str
    ref: str
    sha256: str


@dataclass(frozen=True)
class TokenizerFiles:
    """`tokenizer.json` as text and `tokenizer_config.json` as a dictionary."""

    json: str
    config: dict


@dataclass(frozen=True)
class Checkpoint:
    """A model ready for export.

    `read` returns one tensor as float32 in Hugging Face's layout ([out, in], rotary halves). It reads
    on demand and keeps nothing, so that a model larger than memory can be exported. `make_tokenizer` is
    a call because it takes seconds, which a folder that is there already need not spend.
    """

    config: dict
    source: Source
    make_tokenizer: Callable[[], TokenizerFiles]
    tensor_names: frozenset[str]
    read: Callable[[str], np.ndarray]
    name: str
    license: str | None = None

    @property
    def shape(self) -> LlamaShape:
        return LlamaShape.from_config(self.config, self.source.ref)

    def check_tensors(self) -> None:
        """Refuses what lacks a tensor, and what has one that the graphs would leave out."""
        expected = expected_tensors(self.shape)
        missing = sorted(expected - self.tensor_names)
        if missing:
            raise ExportError(f"{self.source.ref}: {len(missing)} tensors are missing, the first is {missing[0]}")
        # Old Llama checkpoints store the rotary frequencies; tied ones may repeat the embedding as the head.
        extra = sorted(
            name
            for name in self.tensor_names - expected
            if not name.endswith("rotary_emb.inv_freq") and name != HEAD
        )
        if extra:
            raise ExportError(
                f"{self.source.ref}: {extra[0]} has no place in a plain Llama model "
                f"({len(extra)} such tensors); this architecture is not supported"
            )


def layer_tensor(layer: int, part: str) -> str:
    """`layer_tensor(3, "mlp.up_proj")` is the full name of that weight."""
    return f"model.layers.{layer}.{part}.weight"


LAYER_PARTS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def expected_tensors(shape: LlamaShape) -> set[str]:
    """Every tensor name of a model of this shape."""
    names = {EMBEDDING, FINAL_NORM} if shape.tied else {EMBEDDING, FINAL_NORM, HEAD}
    names.update(layer_tensor(layer, part) for layer in range(shape.layers) for part in LAYER_PARTS)
    return names


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_sha256(digests: Iterable[tuple[str, str]]) -> str:
    """One digest for several files: that of the sorted lines `digest  name`, as sha256sum prints them."""
    lines = sorted(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
