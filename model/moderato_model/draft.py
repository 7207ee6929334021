"""The `draft` graph, contract moderato/draft/1: one token after another, for several rows at once.

Every row keeps its keys and values in a buffer with room for `capacity` tokens, given as past and as present: the graph
writes what is new behind the `lengths` tokens that a row has there already. A run takes either one row of several
tokens, with which a row begins, or one token of each row. Only the last token of a row reaches the head.

Two forms, told by their inputs. In float the buffer begins with the prompt, and ONNX Runtime's GroupQueryAttention reads
and writes it. In int8 the prompt's cache comes once, with batch 1, for all rows, and the worker's own operators do the
work; keys are kept transposed there, so that 16 tokens are scored at once.
"""

import numpy as np
import onnx

from .checkpoint import Checkpoint
from .fused import DOMAIN, FusedLayers
from .graph import Graph
from .layers import LlamaParts
from .precision import FloatPrecision
from .shape import LlamaShape
from .weights import WeightFile

CONTRACT = "moderato/draft/1"
FILE_NAME = "draft.onnx"


def build_draft(checkpoint: Checkpoint, precision: FloatPrecision, weights: WeightFile) -> onnx.ModelProto:
    graph = Graph("moderato_draft", weights)
    shape = checkpoint.shape
    parts = LlamaParts(graph, checkpoint, shape, precision)
    kept = ["batch", shape.kv_heads, "capacity", shape.head_dim]
    _declare_inputs(graph, shape, precision, {"key": kept, "value": kept})
    hidden = parts.embed("input_ids")
    lengths = _query_lengths(graph)
    for layer in range(shape.layers):
        attended = _attend(parts, parts.norm(hidden, layer, "input_layernorm"), layer, lengths)
        if layer == shape.layers - 1:
            attended, hidden = _last_token(graph, attended), _last_token(graph, hidden)
        hidden = parts.attention_output(hidden, attended, layer)
        hidden = parts.feed_forward(hidden, layer)
    _declare_outputs(graph, shape, parts.head(parts.final_norm(hidden)))
    return graph.model()


def build_fused_draft(checkpoint: Checkpoint, precision: FloatPrecision, weights: WeightFile) -> onnx.ModelProto:
    graph = Graph("moderato_draft_fused", weights)
    shape = checkpoint.shape
    parts = LlamaParts(graph, checkpoint, shape, precision)
    kept = {
        "key": ["batch", shape.kv_heads, shape.head_dim, "capacity"],
        "value": ["batch", shape.kv_heads, "capacity", shape.head_dim],
    }
    _declare_inputs(graph, shape, precision, kept)
    for layer in range(shape.layers):
        graph.input(_prompt(layer, "key"), precision.dtype, [1, shape.kv_heads, shape.head_dim, "prompt"])
        graph.input(_prompt(layer, "value"), precision.dtype, [1, shape.kv_heads, "prompt", shape.head_dim])
    fused = FusedLayers(parts)
    residual, pending = fused.embed("input_ids"), ()
    for layer in range(shape.layers):
        residual, x = fused.norm(residual, pending)
        attended = _attend_fused(fused, x, layer)
        if layer == shape.layers - 1:
            residual = _last_token(graph, residual)
            attended = tuple(_last_token(graph, value) for value in attended)
        pending = fused.attention_output(attended, layer)
        residual, x = fused.norm(residual, pending)
        pending = fused.feed_forward(x, layer)
    _, x = fused.norm(residual, pending)
    _declare_outputs(graph, shape, fused.head(x))
    return graph.model()


def _declare_inputs(graph: Graph, shape: LlamaShape, precision: FloatPrecision, kept: dict[str, list]) -> None:
    graph.input("input_ids", np.int64, ["batch", "seq"])
    graph.input("lengths", np.int64, ["batch"])
    for layer in range(shape.layers):
        for part, dims in kept.items():
            graph.input(_past(layer, part), precision.dtype, dims)
            graph.output(_present(layer, part), precision.dtype, dims)


def _declare_outputs(graph: Graph, shape: LlamaShape, logits: str) -> None:
    """All logits, and the greatest of each row with its id, so that a device need not give all of them away."""
    graph.node("Identity", logits, out="logits")
    graph.output("logits", np.float32, ["batch", shape.vocab])
    ids = graph.node("ArgMax", logits, axis=1, keepdims=1)
    # The logit at that place, not the maximum: it is no number where the logits are none.
    graph.node("Squeeze", graph.node("GatherElements", logits, ids, axis=1), graph.constant([1]), out="next_logits")
    graph.node("Squeeze", ids, graph.constant([1]), out="next_ids")
    graph.output("next_ids", np.int64, ["batch"])
    graph.output("next_logits", np.float32, ["batch"])


def _query_lengths(graph: Graph) -> tuple[str, str]:
    """What GroupQueryAttention wants to know: the index of each row's last token, and the tokens of the longest row."""
    total = graph.node("Add", "lengths", graph.dimension("input_ids", 1))
    last = graph.node("Sub", total, graph.constant([1]))
    longest = graph.node("ReduceMax", total, graph.constant([0]), keepdims=0)
    return tuple(graph.node("Cast", value, to=onnx.TensorProto.INT32) for value in (last, longest))


def _attend(parts: LlamaParts, normed: str, layer: int, lengths: tuple[str, str]) -> str:
    attended, _, _ = parts.graph.split_node(
        "GroupQueryAttention",
        *parts.plain_queries_keys_values(normed, layer),
        _past(layer, "key"),
        _past(layer, "value"),
        *lengths,
        *parts.rotary(),
        outs=(f"attended.{layer}", _present(layer, "key"), _present(layer, "value")),
        domain="com.microsoft",
        num_heads=parts.shape.heads,
        kv_num_heads=parts.shape.kv_heads,
        do_rotary=1,
        scale=1.0,
    )
    return attended


def _attend_fused(fused: FusedLayers, x: tuple[str, str], layer: int) -> tuple[str, str]:
    projected, scale = fused.projected(x, layer)
    attended, attended_scale, _, _ = fused.parts.graph.split_node(
        "DraftAttention",
        projected,
        scale,
        *fused.parts.rotary(),
        _prompt(layer, "key"),
        _prompt(layer, "value"),
        "lengths",
        _past(layer, "key"),
        _past(layer, "value"),
        outs=(f"attended.{layer}", f"attended_scale.{layer}", _present(layer, "key"), _present(layer, "value")),
        domain=DOMAIN,
    )
    return attended, attended_scale


def _last_token(graph: Graph, value: str) -> str:
    """[batch, seq, width] -> [batch, width]."""
    return graph.node("Gather", value, graph.constant(-1), axis=1)


def _prompt(layer: int, part: str) -> str:
    return f"prompt_key_values.{layer}.{part}"


def _past(layer: int, part: str) -> str:
    return f"past_key_values.{layer}.{part}"


def _present(layer: int, part: str) -> str:
    return f"present.{layer}.{part}"
