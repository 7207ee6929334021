"""The `full` graph, contract huggingface/past-key-values/1.

What transformers and Optimum call a decoder with past: every row has its own past, a mask over past and
present, explicit positions; logits of every token and the extended keys and values come out. It makes
the prompt's cache for `classify`, and drafts text.
"""

import numpy as np
import onnx

from .checkpoint import Checkpoint
from .graph import Graph
from .layers import LlamaParts
from .precision import FloatPrecision
from .weights import WeightFile

CONTRACT = "huggingface/past-key-values/1"
FILE_NAME = "full.onnx"


def build_full(checkpoint: Checkpoint, precision: FloatPrecision, weights: WeightFile) -> onnx.ModelProto:
    graph = Graph("moderato_full", weights)
    shape = checkpoint.shape
    parts = LlamaParts(graph, checkpoint, shape, precision)
    graph.input("input_ids", np.int64, ["batch", "seq"])
    graph.input("attention_mask", np.int64, ["batch", "total"])
    graph.input("position_ids", np.int64, ["batch", "seq"])
    graph.output("logits", np.float32, ["batch", "seq", shape.vocab])
    for layer in range(shape.layers):
        for part in ("key", "value"):
            past = ["batch", shape.kv_heads, "past", shape.head_dim]
            present = ["batch", shape.kv_heads, "total", shape.head_dim]
            graph.input(f"past_key_values.{layer}.{part}", precision.dtype, past)
            graph.output(f"present.{layer}.{part}", precision.dtype, present)

    bias = _attention_bias(graph, precision)
    hidden = parts.embed("input_ids")
    for layer in range(shape.layers):
        attended = _attend(parts, parts.norm(hidden, layer, "input_layernorm"), layer, bias)
        hidden = parts.attention_output(hidden, attended, layer)
        hidden = parts.feed_forward(hidden, layer)
    rows = graph.node("Reshape", parts.final_norm(hidden), graph.constant([-1, shape.hidden]))
    dims = graph.dims(graph.node("Shape", "input_ids"), shape.vocab)
    graph.node("Reshape", parts.head(rows), dims, out="logits")
    return graph.model()


def _attend(parts: LlamaParts, normed: str, layer: int, bias: str) -> str:
    queries, keys, values = parts.queries_keys_values(normed, layer, "position_ids")
    past_key, past_value = (f"past_key_values.{layer}.{part}" for part in ("key", "value"))
    attended, _, _ = parts.graph.split_node(
        "Attention",
        queries,
        keys,
        values,
        bias,
        past_key,
        past_value,
        outs=(f"attended.{layer}", f"present.{layer}.key", f"present.{layer}.value"),
        q_num_heads=parts.shape.heads,
        kv_num_heads=parts.shape.kv_heads,
        scale=1.0,
    )
    return attended


def _attention_bias(graph: Graph, precision: FloatPrecision) -> str:
    """[batch, 1, seq, total]: zero where a token may look, very low elsewhere.

    Causality goes by place in the row, not by position_ids, so rows padded on the left work too.
    """
    seq, total = graph.dimension("input_ids", 1), graph.dimension("attention_mask", 1)
    one = graph.constant(1)
    end = graph.node("Squeeze", total)
    columns = graph.node("Range", graph.constant(0), end, one)
    places = graph.node("Range", graph.node("Squeeze", graph.node("Sub", total, seq)), end, one)
    causal = graph.node("LessOrEqual", columns, graph.node("Unsqueeze", places, graph.constant([1])))
    mask = graph.node("Unsqueeze", "attention_mask", graph.constant([1, 2]))
    present = graph.node("Cast", mask, to=onnx.TensorProto.BOOL)
    visible = graph.node("And", causal, present)
    return graph.node(
        "Where", visible, graph.constant(0, precision.dtype), graph.constant(precision.masked, precision.dtype)
    )
