"""The `classify` graph, contract moderato/cascade/1.

The prompt's keys and values come once, with batch 1, and every post attends to them: one matrix product
per key-value head serves all posts, nothing is expanded or copied. Only the rows named by
`logit_positions` leave the last layer. Rows are padded on the right and need no mask: causality keeps
the padding out of every real token.

Layouts: K key-value heads, G query heads for each, B posts, S tokens, P prompt tokens, D head size.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from .checkpoint import Checkpoint
from .graph import Graph
from .layers import LlamaParts
from .precision import FloatPrecision
from .shape import LlamaShape
from .weights import WeightFile

CONTRACT = "moderato/cascade/1"
FILE_NAME = "classify.onnx"


def build_classify(checkpoint: Checkpoint, precision: FloatPrecision, weights: WeightFile) -> onnx.ModelProto:
    graph = Graph("moderato_classify", weights)
    shape = checkpoint.shape
    parts = LlamaParts(graph, checkpoint, shape, precision)
    declare_inputs(graph, shape, precision)
    cascade = Cascade.declare(parts)
    hidden = parts.embed("input_ids")
    for layer in range(shape.layers):
        attended = cascade.attend(parts.norm(hidden, layer, "input_layernorm"), layer)
        if layer == shape.layers - 1:
            attended = rows(graph, attended, shape.heads * shape.head_dim)
            hidden = rows(graph, hidden, shape.hidden)
        hidden = parts.attention_output(hidden, attended, layer)
        hidden = parts.feed_forward(hidden, layer)
    declare_outputs(graph, parts.head(parts.final_norm(hidden)))
    return graph.model()


def declare_inputs(graph: Graph, shape: LlamaShape, precision: FloatPrecision) -> None:
    graph.input("input_ids", np.int64, ["batch", "seq"])
    for layer in range(shape.layers):
        for part in ("key", "value"):
            dims = [1, shape.kv_heads, "past", shape.head_dim]
            graph.input(f"past_key_values.{layer}.{part}", precision.dtype, dims)
    graph.input("logit_positions", np.int64, ["rows"])
    graph.input("label_ids", np.int64, ["labels"])


def rows(graph: Graph, value: str, width: int) -> str:
    """[batch, seq, width] -> [rows, width]."""
    return graph.node("Gather", graph.node("Reshape", value, graph.constant([-1, width])), "logit_positions")


def declare_outputs(graph: Graph, vocabulary_logits: str) -> None:
    """The label logits out of all, and the normaliser."""
    graph.node("Gather", vocabulary_logits, "label_ids", out="logits", axis=1)
    graph.output("logits", np.float32, ["rows", "labels"])
    declare_normalizer(graph, vocabulary_logits)


def declare_normalizer(graph: Graph, vocabulary_logits: str) -> None:
    """The logarithm of the sum of exponentials over the whole vocabulary, shifted by its largest."""
    last = graph.constant([1])
    peak = graph.node("ReduceMax", vocabulary_logits, last, keepdims=1)
    mass = graph.node("ReduceSum", graph.node("Exp", graph.node("Sub", vocabulary_logits, peak)), last, keepdims=0)
    peak = graph.node("Squeeze", peak, last)
    graph.node("Add", graph.node("Log", mass), peak, out="log_normalizer")
    graph.output("log_normalizer", np.float32, ["rows"])


@dataclass(frozen=True)
class Cascade:
    """Attention over the shared prompt and, causally, over the post itself.

    The fields are shapes and indices computed once per run. Shapes are spelt out, never -1: with an
    empty prompt a tensor has no elements and -1 would have no answer.
    """

    parts: LlamaParts
    positions: str
    causal: str
    split: str
    by_head: str
    by_post: str
    by_post_scores: str
    all_posts: str
    all_posts_scores: str
    heads_apart: str

    @staticmethod
    def declare(parts: LlamaParts) -> "Cascade":
        graph, shape = parts.graph, parts.shape
        kv, group, size = shape.kv_heads, shape.group, shape.head_dim
        batch, seq = graph.dimension("input_ids", 0), graph.dimension("input_ids", 1)
        past = graph.dimension("past_key_values.0.key", 2)
        group_rows = graph.node("Mul", seq, graph.constant([group]))
        all_rows = graph.node("Mul", batch, group_rows)
        steps = _steps(graph, seq)
        positions = graph.node("Expand", graph.node("Add", steps, past), graph.dims(batch, seq))
        return Cascade(
            parts=parts,
            positions=graph.known(positions, np.int64, ["batch", "seq"]),
            causal=_causal_bias(parts, steps, seq, group_rows),
            split=graph.dims(past, seq),
            by_head=graph.constant([0, 0, kv, size]),
            by_post=graph.dims(kv, batch, group_rows, size),
            by_post_scores=graph.dims(kv, batch, group_rows, seq),
            all_posts=graph.dims(kv, all_rows, size),
            all_posts_scores=graph.dims(kv, all_rows, seq),
            heads_apart=graph.dims(kv, batch, group, seq, size),
        )

    def attend(self, normed: str, layer: int) -> str:
        """[B, S, hidden] -> [B, S, heads * D], before the output projection."""
        graph, shape = self.parts.graph, self.parts.shape
        queries, keys, values = self.parts.queries_keys_values(normed, layer, self.positions)
        grouped = graph.constant([0, 0, shape.kv_heads, shape.group, shape.head_dim])
        queries = graph.node("Transpose", graph.node("Reshape", queries, grouped), perm=[2, 0, 3, 1, 4])
        weights = self._probabilities(queries, keys, layer)
        on_prompt, on_post = graph.split_node("Split", weights, self.split, outs=2, axis=-1)
        self._known(on_prompt, "all_rows", "past")
        self._known(on_post, "all_rows", "seq")

        values = graph.node("Transpose", graph.node("Reshape", values, self.by_head), perm=[2, 0, 1, 3])
        on_post = self._reshape(on_post, self.by_post_scores, "batch", "group_rows", "seq")
        from_post = graph.node("MatMul", on_post, values)
        from_post = self._reshape(from_post, self.all_posts, "all_rows", shape.head_dim)
        from_prompt = graph.node("MatMul", on_prompt, self._prompt(layer, "value"))
        mixed = graph.node("Add", from_prompt, from_post)
        mixed = self._reshape(mixed, self.heads_apart, "batch", shape.group, "seq", shape.head_dim)
        apart = graph.node("Transpose", mixed, perm=[1, 3, 0, 2, 4])
        return graph.node("Reshape", apart, graph.constant([0, 0, shape.heads * shape.head_dim]))

    def _probabilities(self, queries: str, keys: str, layer: int) -> str:
        """[K, B*G*S, P+S]: one softmax over prompt and post together."""
        graph, size = self.parts.graph, self.parts.shape.head_dim
        prompt_keys = graph.node("Transpose", self._prompt(layer, "key"), perm=[0, 2, 1])
        keys = graph.node("Transpose", graph.node("Reshape", keys, self.by_head), perm=[2, 0, 3, 1])
        on_prompt = graph.node("MatMul", self._reshape(queries, self.all_posts, "all_rows", size), prompt_keys)
        on_post = graph.node("MatMul", self._reshape(queries, self.by_post, "batch", "group_rows", size), keys)
        on_post = graph.node("Add", on_post, self.causal)
        on_post = self._reshape(on_post, self.all_posts_scores, "all_rows", "seq")
        scores = graph.node("Concat", on_prompt, on_post, axis=-1)
        return graph.node("Softmax", self._known(scores, "all_rows", "past_and_seq"), axis=-1)

    def _reshape(self, value: str, shape: str, *dims: str | int) -> str:
        return self._known(self.parts.graph.node("Reshape", value, shape, allowzero=1), *dims)

    def _known(self, value: str, *dims: str | int) -> str:
        """All values of the attention have the key-value heads in front."""
        return self.parts.graph.known(value, self.parts.precision.dtype, [self.parts.shape.kv_heads, *dims])

    def _prompt(self, layer: int, part: str) -> str:
        return self.parts.graph.node(
            "Squeeze", f"past_key_values.{layer}.{part}", self.parts.graph.constant([0])
        )


def _steps(graph: Graph, seq: str) -> str:
    """0, 1, ... S-1."""
    zero = graph.constant(0)
    end = graph.node("Squeeze", seq)
    return graph.node("Range", zero, end, graph.constant(1))


def _causal_bias(parts: LlamaParts, steps: str, seq: str, group_rows: str) -> str:
    """[G*S, S]: the S x S causal bias, once for each query head of a group."""
    graph, precision = parts.graph, parts.precision
    visible = graph.node("LessOrEqual", steps, graph.node("Unsqueeze", steps, graph.constant([1])))
    bias = graph.node(
        "Where", visible, graph.constant(0, precision.dtype), graph.constant(precision.masked, precision.dtype)
    )
    tiled = graph.node("Expand", bias, graph.dims(parts.shape.group, seq, seq))
    bias = graph.node("Reshape", tiled, graph.dims(group_rows, seq))
    return graph.known(bias, precision.dtype, ["group_rows", "seq"])
