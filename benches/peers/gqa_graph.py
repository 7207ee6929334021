"""The decoder as onnxruntime-genai wants it: GroupQueryAttention over one past-present buffer.

The same weights and layers as moderato's own graphs; only the attention differs. The head sees the last token
alone: a prefill over a vocabulary of 49,152 would otherwise pay for logits that nobody reads.
"""

import functools
import json
from pathlib import Path

import numpy as np
import onnx
from moderato_model.checkpoint import Checkpoint
from moderato_model.graph import Graph
from moderato_model.layers import LlamaParts
from moderato_model.precision import PRECISIONS, Activation, FloatPrecision
from moderato_model.shape import LlamaShape
from moderato_model.weights import WeightFile

CONTRIB = "com.microsoft"


def write_folder(checkpoint: Checkpoint, folder: Path, precision_name: str, make=None) -> None:
    """model.onnx, its weights, genai_config.json and the tokenizer."""
    with WeightFile(folder) as weights:
        model = (make or build)(checkpoint, precision_name, weights)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "genai_config.json").write_text(json.dumps(genai_config(checkpoint), indent=2))
    tokenizer = checkpoint.make_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer.config), encoding="utf-8")


def build(checkpoint: Checkpoint, precision_name: str, weights: WeightFile) -> onnx.ModelProto:
    shape, precision = checkpoint.shape, PRECISIONS[precision_name]
    graph = Graph("group_query_attention", weights)
    parts = LlamaParts(graph, checkpoint, shape, precision)
    _declare_ports(graph, shape, precision)
    lengths = _lengths(graph)
    hidden = parts.embed("input_ids")
    for layer in range(shape.layers):
        queries, keys, values = parts.queries_keys_values(
            parts.norm(hidden, layer, "input_layernorm"), layer, "position_ids"
        )
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        # Queries come rotated and scaled already.
        attended, _, _ = graph.split_node(
            "GroupQueryAttention",
            *(queries, keys, values, *past, *lengths),
            outs=(f"attended.{layer}", *present),
            domain=CONTRIB,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            scale=1.0,
        )
        hidden = parts.feed_forward(parts.attention_output(hidden, attended, layer), layer)
    last = graph.node("Gather", parts.final_norm(hidden), graph.constant(-1), axis=1)
    graph.node("Unsqueeze", parts.head(last), graph.constant([1]), out="logits")
    model = graph.model()
    model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return model


class BlockPrecision(FloatPrecision):
    """What onnxruntime-genai's own builder makes: a scale for each 32 weights of a row, int8 arithmetic."""

    block = 32

    def __init__(self, bits: int):
        super().__init__(f"int{bits}", np.float32, masked=-1e9)
        self.bits = bits

    def linear(self, graph: Graph, x: Activation, name: str, read) -> str:
        both = functools.cache(lambda: self._quantise(read()))
        rows, inner = both()[1].shape[0], both()[0].shape[1] * self.block
        return graph.node(
            "MatMulNBits",
            x.value,
            graph.weight(f"{name}.bits{self.bits}", lambda: both()[0]),
            graph.weight(f"{name}.scale{self.bits}", lambda: both()[1]),
            domain=CONTRIB,
            K=inner,
            N=rows,
            bits=self.bits,
            block_size=self.block,
            accuracy_level=4,
        )

    def _quantise(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Symmetric; bytes [out, blocks, block * bits / 8] and scales [out, blocks]."""
        blocks = matrix.reshape(len(matrix), -1, self.block)
        half = 1 << (self.bits - 1)
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
        scales = np.where(largest == 0, 1, largest / -half)
        whole = np.clip(np.rint(blocks / scales) + half, 0, 2 * half - 1).astype(np.uint8)
        packed = whole[..., 0::2] | (whole[..., 1::2] << 4) if self.bits == 4 else whole
        return packed, scales[..., 0].astype(np.float32)


def build_for_drafting(checkpoint: Checkpoint, precision_name: str, weights: WeightFile) -> onnx.ModelProto:
    """Rotation within the attention, and a head of 8 bits: a token of text reads it whole."""
    shape = checkpoint.shape
    precision = BlockPrecision(4) if precision_name == "int4" else PRECISIONS[precision_name]
    graph = Graph("group_query_attention_drafting", weights)
    parts = LlamaParts(graph, checkpoint, shape, precision)
    _declare_ports(graph, shape, precision)
    lengths = _lengths(graph)
    hidden = parts.embed("input_ids")
    for layer in range(shape.layers):
        ports = [f"{port}.{layer}.{part}" for port in ("past_key_values", "present") for part in ("key", "value")]
        attended, _, _ = graph.split_node(
            "GroupQueryAttention",
            *parts.plain_queries_keys_values(parts.norm(hidden, layer, "input_layernorm"), layer),
            *(*ports[:2], *lengths, *parts.rotary()),
            outs=(f"attended.{layer}", *ports[2:]),
            domain=CONTRIB,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
            scale=1.0,
        )
        hidden = parts.feed_forward(parts.attention_output(hidden, attended, layer), layer)
    last = parts.final_norm(graph.node("Gather", hidden, graph.constant(-1), axis=1))
    name = parts.head_name
    head = BlockPrecision(8) if precision_name == "int4" else precision
    logits = head.linear(graph, head.prepare(graph, last), f"{name}.head", lambda: checkpoint.read(name))
    graph.node("Unsqueeze", logits, graph.constant([1]), out="logits")
    return graph.model()


def _declare_ports(graph: Graph, shape: LlamaShape, precision: FloatPrecision) -> None:
    graph.input("input_ids", np.int64, ["batch", "seq"])
    graph.input("attention_mask", np.int64, ["batch", "total"])
    graph.input("position_ids", np.int64, ["batch", "seq"])
    graph.output("logits", np.float32, ["batch", 1, shape.vocab])
    for layer in range(shape.layers):
        for part in ("key", "value"):
            dims = ["batch", shape.kv_heads, "buffer", shape.head_dim]
            graph.input(f"past_key_values.{layer}.{part}", precision.dtype, dims)
            graph.output(f"present.{layer}.{part}", precision.dtype, dims)


def _lengths(graph: Graph) -> tuple[str, str]:
    """What GroupQueryAttention asks for: each row's last position, and the longest row's length, both int32."""
    counted = graph.node("ReduceSum", "attention_mask", graph.constant([1]), keepdims=0)
    last = graph.node("Cast", graph.node("Sub", counted, graph.constant(1)), to=onnx.TensorProto.INT32)
    longest = graph.node("Squeeze", graph.dimension("attention_mask", 1))
    return last, graph.node("Cast", longest, to=onnx.TensorProto.INT32)


def genai_config(checkpoint: Checkpoint) -> dict:
    shape, config = checkpoint.shape, checkpoint.config
    return {
        "model": {
            "type": "llama",
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
            "pad_token_id": config["eos_token_id"],
            "vocab_size": shape.vocab,
            "context_length": shape.context,
            "decoder": {
                "filename": "model.onnx",
                "session_options": {
                    "intra_op_num_threads": 1,
                    "inter_op_num_threads": 1,
                    "session.intra_op.allow_spinning": "0",
                },
                "hidden_size": shape.hidden,
                "head_size": shape.head_dim,
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads,
                "num_hidden_layers": shape.layers,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"max_length": 1024, "do_sample": False, "num_beams": 1, "past_present_share_buffer": True},
    }
