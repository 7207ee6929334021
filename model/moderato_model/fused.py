"""The `classify` graph for the worker on a CPU: int8 products, and one operator for what stands between two of them.

The contract is that of classify.py. The operators of the domain `moderato` are the worker's own (src/model/operators):
no other program can run this graph. Every activation is [..., width] uint8 around 128 with one scale per row, and what
a product gives is multiplied by that scale in the operator that reads it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from .checkpoint import Checkpoint, layer_tensor
from .classify import declare_inputs, declare_normalizer, rows
from .graph import Graph
from .layers import LlamaParts
from .precision import FloatPrecision, quantise_rows
from .weights import WeightFile

DOMAIN = "moderato"


def build_fused(checkpoint: Checkpoint, precision: FloatPrecision, weights: WeightFile) -> onnx.ModelProto:
    graph = Graph("moderato_classify_fused", weights)
    shape = checkpoint.shape
    parts = LlamaParts(graph, checkpoint, shape, precision)
    declare_inputs(graph, shape, precision)
    fused = FusedLayers(parts)
    residual, pending = parts.embed("input_ids"), ()
    for layer in range(shape.layers):
        last = layer == shape.layers - 1
        residual, x = fused.norm(residual, pending, layer, "input_layernorm")
        attended = fused.attend(x, layer, ("logit_positions",) if last else ())
        if last:
            residual = rows(graph, residual, shape.hidden)
        pending = fused.linear(attended, layer, "self_attn.o_proj")
        residual, x = fused.norm(residual, pending, layer, "post_attention_layernorm")
        pending = fused.feed_forward(x, layer)
    product, scale = pending
    hidden = graph.node("Add", residual, graph.node("Mul", product, scale))
    hidden = parts.final_norm(hidden)
    parts.label_logits(hidden)
    graph.output("logits", np.float32, ["rows", "labels"])
    declare_normalizer(graph, fused.vocabulary_logits(hidden))
    return graph.model()


@dataclass(frozen=True)
class FusedLayers:
    """Emits the operators. A quantised value is a pair: bytes, and the scale of each row."""

    parts: LlamaParts

    def norm(self, residual: str, pending: tuple[str, ...], layer: int, part: str) -> tuple[str, tuple[str, str]]:
        """Adds the last product to the residual; also gives the sum normalised."""
        return self._add_norm(residual, pending, self.parts.norm_weight(layer, part))

    def final_norm(self, residual: str, pending: tuple[str, ...]) -> tuple[str, tuple[str, str]]:
        return self._add_norm(residual, pending, self.parts.final_norm_weight())

    def _add_norm(self, residual: str, pending: tuple[str, ...], weight: str) -> tuple[str, tuple[str, str]]:
        parts = self.parts
        total, bytes_, scale = parts.graph.split_node(
            "AddNormQuantize",
            residual,
            weight,
            *pending,
            outs=3,
            domain=DOMAIN,
            epsilon=parts.shape.norm_epsilon,
        )
        return total, (bytes_, scale)

    def attend(self, x: tuple[str, str], layer: int, some_rows: tuple[str, ...]) -> tuple[str, str]:
        projected, scale = self.projected(x, layer)
        cos, sin = self.parts.rotary()
        past = (f"past_key_values.{layer}.{part}" for part in ("key", "value"))
        return self._node("CascadeAttention", projected, scale, cos, sin, *past, *some_rows)

    def projected(self, x: tuple[str, str], layer: int) -> tuple[str, str]:
        """Queries, keys and values in one row, before rotation."""
        return self._product(x, layer_tensor(layer, "self_attn.qkv_proj"), self._queries_keys_values(layer))

    def feed_forward(self, x: tuple[str, str], layer: int) -> tuple[str, str]:
        def gate_and_up() -> np.ndarray:
            return np.concatenate([self.parts.matrix(layer, f"mlp.{part}_proj") for part in ("gate", "up")])

        gated = self._node("SwiGluQuantize", *self._product(x, layer_tensor(layer, "mlp.gate_up_proj"), gate_and_up))
        return self.linear(gated, layer, "mlp.down_proj")

    def linear(self, x: tuple[str, str], layer: int, part: str) -> tuple[str, str]:
        return self._product(x, layer_tensor(layer, part), lambda: self.parts.matrix(layer, part))

    def vocabulary_logits(self, hidden: str) -> str:
        """All logits as int8 gives them: reading the vocabulary in float would cost a short batch a tenth of its time.

        Only the normaliser, a sum over all of them, is made of these; the labels' own logits are float.
        """
        x = self.parts.precision.prepare(self.parts.graph, hidden)
        return self.head((x.value, x.row_scale))

    def head(self, x: tuple[str, str]) -> str:
        name = self.parts.head_name
        product, scale = self._product(x, f"{name}.head", lambda: self.parts.checkpoint.read(name))
        return self.parts.graph.node("Mul", product, scale)

    def _queries_keys_values(self, layer: int) -> Callable[[], np.ndarray]:
        factors = {"q": self.parts.query_factor, "k": 1.0, "v": 1.0}
        return lambda: np.concatenate(
            [self.parts.matrix(layer, f"self_attn.{part}_proj", factor) for part, factor in factors.items()]
        )

    def _product(self, x: tuple[str, str], name: str, read: Callable[[], np.ndarray]) -> tuple[str, str]:
        """x @ W.T for the [out, in] matrix that `read` returns, not yet multiplied by x's scales."""
        graph = self.parts.graph
        both = functools.cache(lambda: quantise_rows(read()))
        quantised = graph.weight(f"{name}.int8", lambda: both()[0].T)
        scales = graph.weight(f"{name}.scale", lambda: both()[1])
        one, zero = graph.constant(1.0, np.float32), graph.constant(128, np.uint8)
        product = graph.node(
            "MatMulIntegerToFloat", x[0], quantised, one, scales, zero, domain="com.microsoft"
        )
        return product, x[1]

    def _node(self, op: str, *inputs: str) -> tuple[str, str]:
        return self.parts.graph.split_node(op, *inputs, outs=2, domain=DOMAIN)
