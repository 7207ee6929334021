"""The parts of a Llama layer that both graphs share, and with them the weights."""

import math
from dataclasses import dataclass

import numpy as np
import onnx

from .checkpoint import EMBEDDING, FINAL_NORM, HEAD, Checkpoint, layer_tensor
from .graph import Graph
from .precision import Activation, FloatPrecision
from .shape import LlamaShape


@dataclass(frozen=True)
class LlamaParts:
    """Emits nodes of one model in one precision into one graph."""

    graph: Graph
    checkpoint: Checkpoint
    shape: LlamaShape
    precision: FloatPrecision

    def embed(self, input_ids: str) -> str:
        return self.graph.node("Gather", self._plain(EMBEDDING), input_ids)

    def norm(self, value: str, layer: int, part: str) -> str:
        return self._norm(value, layer_tensor(layer, part))

    def final_norm(self, value: str) -> str:
        return self._norm(value, FINAL_NORM)

    def head(self, rows: str) -> str:
        """Logits over the vocabulary, float32, for [rows, hidden]."""
        logits = self.graph.node("Gemm", rows, self._plain(self.head_name), transB=1)
        if self.precision.dtype == np.float32:
            return logits
        return self.graph.node("Cast", logits, to=onnx.TensorProto.FLOAT)

    @property
    def query_factor(self) -> float:
        return 1 / math.sqrt(self.shape.head_dim)

    def label_logits(self, rows: str) -> str:
        """Logits of the labels alone, float32, for [rows, hidden]."""
        labels = self.graph.node("Gather", self._plain(self.head_name), "label_ids")
        return self.graph.node("Gemm", rows, labels, transB=1, out="logits")

    @property
    def head_name(self) -> str:
        return EMBEDDING if self.shape.tied else HEAD

    def queries_keys_values(self, normed: str, layer: int, positions: str) -> tuple[str, str, str]:
        """[batch, seq, heads * head_dim] each, rotated; queries carry 1/sqrt(head_dim) already."""
        queries, keys, values = self.plain_queries_keys_values(normed, layer)
        return (
            self._rotate(queries, self.shape.heads, positions),
            self._rotate(keys, self.shape.kv_heads, positions),
            values,
        )

    def plain_queries_keys_values(self, normed: str, layer: int) -> tuple[str, str, str]:
        """The same before rotation."""
        x = self.precision.prepare(self.graph, normed)
        # Scaling the query weights costs nothing at run time, and all graphs use the same bytes.
        queries = self._linear(x, layer, "self_attn.q_proj", self.query_factor)
        return queries, self._linear(x, layer, "self_attn.k_proj"), self._linear(x, layer, "self_attn.v_proj")

    def attention_output(self, residual: str, attended: str, layer: int) -> str:
        x = self.precision.prepare(self.graph, attended)
        return self.graph.node("Add", residual, self._linear(x, layer, "self_attn.o_proj"))

    def feed_forward(self, residual: str, layer: int) -> str:
        """residual + down(silu(gate(h)) * up(h)) with h = norm(residual)."""
        x = self.precision.prepare(self.graph, self.norm(residual, layer, "post_attention_layernorm"))
        gate = self._linear(x, layer, "mlp.gate_proj")
        up = self._linear(x, layer, "mlp.up_proj")
        silu = self.graph.node("Mul", gate, self.graph.node("Sigmoid", gate))
        product = self.precision.prepare(self.graph, self.graph.node("Mul", silu, up))
        return self.graph.node("Add", residual, self._linear(product, layer, "mlp.down_proj"))

    def _plain(self, name: str) -> str:
        """A tensor stored as the checkpoint has it, in the graph's float type."""
        return self.graph.weight(name, lambda: self.checkpoint.read(name).astype(self.precision.dtype, copy=False))

    def _norm(self, value: str, name: str) -> str:
        return self.graph.node(
            "RMSNormalization", value, self._plain(name), axis=-1, epsilon=self.shape.norm_epsilon
        )

    def _linear(self, x: Activation, layer: int, part: str, factor: float = 1.0) -> str:
        name = layer_tensor(layer, part)

        return self.precision.linear(self.graph, x, name, lambda: self.matrix(layer, part, factor))

    def matrix(self, layer: int, part: str, factor: float = 1.0) -> np.ndarray:
        """[out, in] as the checkpoint has it, times a factor."""
        matrix = self.checkpoint.read(layer_tensor(layer, part))
        return matrix if factor == 1.0 else matrix * np.float32(factor)

    def _rotate(self, value: str, heads: int, positions: str) -> str:
        return self.graph.node("RotaryEmbedding", value, *self.rotary(), positions, num_heads=heads)

    def rotary(self) -> tuple[str, str]:
        """Cosines and sines, [context, head_dim / 2]."""
        # Both halves of the cache are made together but asked for apart; the second call is cheap beside a layer.
        cos = self.graph.weight("rotary.cos", lambda: self.shape.rotary_cache()[0].astype(self.precision.dtype))
        sin = self.graph.weight("rotary.sin", lambda: self.shape.rotary_cache()[1].astype(self.precision.dtype))
        return cos, sin
