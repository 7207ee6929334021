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

from . import rotation
from .checkpoint import FINAL_NORM, Checkpoint, layer_tensor
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
    residual, pending = fused.embed("input_ids"), ()
    for layer in range(shape.layers):
        last = layer == shape.layers - 1
        residual, x = fused.norm(residual, pending)
        attended = fused.attend(x, layer, ("logit_positions",) if last else ())
        if last:
            residual = rows(graph, residual, shape.hidden)
        pending = fused.attention_output(attended, layer)
        residual, x = fused.norm(residual, pending)
        pending = fused.feed_forward(x, layer)
    residual, x = fused.norm(residual, pending)
    parts.label_logits(parts.final_norm(fused.turned_back(residual)))
    graph.output("logits", np.float32, ["rows", "labels"])
    # All logits as int8 gives them: reading the vocabulary in float would cost a short batch a tenth of its time. Only the
    # normaliser, a sum over all of them, is made of these; the labels' own logits are float.
    declare_normalizer(graph, fused.head(x))
    return graph.model()


@dataclass(frozen=True)
class FusedLayers:
    """Emits the operators. A quantised value is a pair: bytes, and the scale of each row.

    The residual stream is turned (rotation.py): the norms' weights and the turn stand in the matrices beside them.
    """

    parts: LlamaParts

    def embed(self, input_ids: str) -> str:
        return self.parts.graph.node("MatMul", self.parts.embed(input_ids), self._turn("rotation", lambda turn: turn))

    def turned_back(self, residual: str) -> str:
        return self.parts.graph.node("MatMul", residual, self._turn("rotation.back", lambda turn: turn.T))

    def norm(self, residual: str, pending: tuple[str, ...]) -> tuple[str, tuple[str, str]]:
        """Adds the last product to the residual; also gives the sum normalised, without the norm's weights."""
        parts = self.parts
        width = parts.shape.hidden
        total, bytes_, scale = parts.graph.split_node(
            "AddNormQuantize",
            residual,
            parts.graph.weight("rotation.ones", lambda: np.ones(width, np.float32)),
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
        factors = {"self_attn.q_proj": self.parts.query_factor, "self_attn.k_proj": 1.0, "self_attn.v_proj": 1.0}
        name = layer_tensor(layer, "self_attn.qkv_proj")
        return self._product(x, name, lambda: self._behind_norm(layer, "input_layernorm", factors))

    def feed_forward(self, x: tuple[str, str], layer: int) -> tuple[str, str]:
        name = layer_tensor(layer, "mlp.gate_up_proj")
        parts = {"mlp.gate_proj": 1.0, "mlp.up_proj": 1.0}
        product = self._product(x, name, lambda: self._behind_norm(layer, "post_attention_layernorm", parts))
        width = self.parts.shape.ffn
        gated = self._node("SwiGluQuantize", *product, mixed=rotation.mixed(width))
        down = "mlp.down_proj"
        return self._product(gated, layer_tensor(layer, down), lambda: rotation.unmix(self._into_residual(layer, down)))

    def attention_output(self, x: tuple[str, str], layer: int) -> tuple[str, str]:
        part = "self_attn.o_proj"
        return self._product(x, layer_tensor(layer, part), lambda: self._into_residual(layer, part))

    def head(self, x: tuple[str, str]) -> str:
        """Logits over the vocabulary."""
        name = self.parts.head_name

        def matrix() -> np.ndarray:
            weighted = self.parts.checkpoint.read(name) * self.parts.checkpoint.read(FINAL_NORM)
            return weighted @ self._rotation()

        product, scale = self._product(x, f"{name}.head", matrix)
        return self.parts.graph.node("Mul", product, scale)

    def _rotation(self) -> np.ndarray:
        return rotation.residual(self.parts.shape.hidden)

    def _turn(self, name: str, form: Callable[[np.ndarray], np.ndarray]) -> str:
        return self.parts.graph.weight(name, lambda: np.ascontiguousarray(form(self._rotation()), np.float32))

    def _behind_norm(self, layer: int, norm: str, parts: dict[str, float]) -> np.ndarray:
        """Matrices that read the norm's output, one below the other, each times its factor: with the norm's weights."""
        weight = self.parts.checkpoint.read(layer_tensor(layer, norm))
        rows = [self.parts.matrix(layer, part, factor) for part, factor in parts.items()]
        return (np.concatenate(rows) * weight) @ self._rotation()

    def _into_residual(self, layer: int, part: str) -> np.ndarray:
        return self._rotation().T @ self.parts.matrix(layer, part)

    def _product(self, x: tuple[str, str], name: str, read: Callable[[], np.ndarray]) -> tuple[str, str]:
        """x @ W.T for the [out, in] matrix that `read` returns, not yet multiplied by x's scales."""
        graph = self.parts.graph
        both = functools.cache(lambda: quantise_rows(read()))
        # Names of their own: the weights of another int8 graph in the folder are not turned.
        quantised = graph.weight(f"{name}.turned.int8", lambda: both()[0].T)
        scales = graph.weight(f"{name}.turned.scale", lambda: both()[1])
        one, zero = graph.constant(1.0, np.float32), graph.constant(128, np.uint8)
        product = graph.node(
            "MatMulIntegerToFloat", x[0], quantised, one, scales, zero, domain="com.microsoft"
        )
        return product, x[1]

    def _node(self, op: str, *inputs: str, **attributes) -> tuple[str, str]:
        return self.parts.graph.split_node(op, *inputs, outs=2, domain=DOMAIN, **attributes)
