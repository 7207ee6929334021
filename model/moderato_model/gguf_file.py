"""A GGUF file of the Llama architecture as a checkpoint."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from . import gguf_tokenizer
from .checkpoint import EMBEDDING, FINAL_NORM, HEAD, Checkpoint, Source, layer_tensor, sha256_of
from .errors import ExportError

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd.weight": EMBEDDING, "output_norm.weight": FINAL_NORM, "output.weight": HEAD}


def open_gguf(path: Path, ref: str | None = None) -> Checkpoint:
    """`ref` is how the manifest names the file; its own name by default."""
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise ExportError(f"{path}: not a readable GGUF file: {error}") from error
    metadata = Metadata(reader, path)
    config = _config(metadata, reader)
    tensors = {_hugging_face_name(tensor.name, path): tensor for tensor in reader.tensors}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        matrix = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        matrix = matrix.reshape([int(length) for length in reversed(tensor.shape)])
        for part, count in heads.items():
            if name.endswith(f"self_attn.{part}.weight"):
                return unpermute(matrix, count)
        return matrix

    return Checkpoint(
        config=config,
        source=Source("gguf", ref or path.name, sha256_of(path)),
        make_tokenizer=lambda: gguf_tokenizer.tokenizer_files(metadata),
        tensor_names=frozenset(tensors),
        read=read,
        name=metadata.get("general.name", path.stem),
        license=metadata.get("general.license"),
    )


def unpermute(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's row order of query and key weights.

    It keeps the two numbers that one angle rotates side by side (0, D/2, 1, D/2+1, ...); Hugging Face,
    and ONNX's RotaryEmbedding, keep them half a head apart.
    """
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


class Metadata:
    """The key-value part of a GGUF file."""

    def __init__(self, reader: GGUFReader, path: Path):
        self._fields = reader.fields
        self.path = path

    def get(self, key: str, default=None):
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def need(self, key: str):
        value = self.get(key)
        if value is None:
            raise ExportError(f"{self.path}: the GGUF metadata has no {key}")
        return value


def _config(metadata: Metadata, reader: GGUFReader) -> dict:
    """A Hugging Face config.json from the metadata."""
    architecture = metadata.need("general.architecture")
    if architecture != "llama":
        raise ExportError(f"{metadata.path}: architecture {architecture!r} is not supported; llama is")
    if metadata.get("llama.expert_count", 0):
        raise ExportError(f"{metadata.path}: a mixture of experts (llama.expert_count) is not supported")
    scaling = metadata.get("llama.rope.scaling.type", "none")
    names = {tensor.name for tensor in reader.tensors}
    embedding = next((tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is None:
        raise ExportError(f"{metadata.path}: no token_embd.weight; this is not a whole model")
    if scaling not in ("none", "linear") or "rope_freqs.weight" in names:
        raise ExportError(
            f"{metadata.path}: scaled rotary embedding ({scaling if scaling != 'none' else 'rope_freqs.weight'}) "
            "cannot be read from GGUF; export from the Hugging Face folder"
        )
    heads, hidden = metadata.need("llama.attention.head_count"), metadata.need("llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_size": hidden,
        "intermediate_size": metadata.need("llama.feed_forward_length"),
        "num_hidden_layers": metadata.need("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": metadata.get("llama.attention.key_length", hidden // heads),
        "max_position_embeddings": metadata.need("llama.context_length"),
        "rms_norm_eps": _shortest(metadata.need("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(metadata.get("llama.rope.freq_base", 10000.0)),
        "rope_scaling": None,
        "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": int(embedding.shape[1]),
        "torch_dtype": "float32",
    }
    rotated = metadata.get("llama.rope.dimension_count", config["head_dim"])
    if rotated != config["head_dim"]:
        raise ExportError(f"{metadata.path}: rotates {rotated} of {config['head_dim']} dimensions; all are needed")
    if scaling == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": metadata.need("llama.rope.scaling.factor")}
    for role in ("bos", "eos"):
        config[f"{role}_token_id"] = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return config


def _shortest(value: float) -> float:
    """GGUF stores float32: 9.999999747378752e-06 was written as 1e-05."""
    return float(str(np.float32(value)))


def _hugging_face_name(name: str, path: Path) -> str:
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    pieces = name.split(".")
    if len(pieces) == 4 and pieces[0] == "blk" and pieces[3] == "weight" and pieces[2] in LAYER_NAMES:
        return layer_tensor(int(pieces[1]), LAYER_NAMES[pieces[2]])
    raise ExportError(f"{path}: tensor {name} has no place in a plain Llama model; this model is not supported")
