"""How one precision stores numbers and multiplies by a weight matrix.

Matrices of the layers are stored transposed, [in, out], as MatMul takes them. Embedding and head stay
[vocab, hidden] in every precision, so that Gather and Gemm can share one tensor when they are tied.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from .graph import Graph


@dataclass(frozen=True)
class Activation:
    """A value as the linear layers of one precision want it: prepared once, used by several."""

    value: str
    row_scale: str | None = None


class FloatPrecision:
    """fp32 and fp16: one MatMul."""

    def __init__(self, name: str, dtype, masked: float):
        self.name = name
        self.dtype = np.dtype(dtype)
        # Added to scores that must vanish. Finite, so that a row with nothing to see stays free of NaN.
        self.masked = masked

    def prepare(self, graph: Graph, value: str) -> Activation:
        return Activation(value)

    def linear(self, graph: Graph, x: Activation, name: str, read: Callable[[], np.ndarray]) -> str:
        """x @ W.T for the [out, in] matrix that `read` returns."""
        return graph.node("MatMul", x.value, graph.weight(name, lambda: read().T.astype(self.dtype, copy=False)))


class Int8Precision(FloatPrecision):
    """Integer products: one scale per output channel and one per token.

    A scale per token keeps a row's scores independent of its batch mates, which one scale for the
    whole activation tensor would not; only standard operators, so any runtime can take the graph. Under the name
    `int8` the classify graph is that of fused.py instead, with the same quantisation.
    """

    def __init__(self, name: str):
        super().__init__(name, np.float32, masked=-1e9)

    def prepare(self, graph: Graph, value: str) -> Activation:
        """Unsigned with zero at 128: CPU dot-product instructions want unsigned times signed."""
        peak = graph.node("ReduceMax", graph.node("Abs", value), graph.constant([-1]), keepdims=1)
        scale = graph.node("Mul", peak, graph.constant(1 / 127, np.float32))
        # A row of zeros would divide by zero.
        scale = graph.node("Max", scale, graph.constant(1e-10, np.float32))
        scaled = graph.node("Mul", value, graph.node("Reciprocal", scale))
        quantised = graph.node(
            "QuantizeLinear", scaled, graph.constant(1.0, np.float32), graph.constant(128, np.uint8)
        )
        return Activation(quantised, scale)

    def linear(self, graph: Graph, x: Activation, name: str, read: Callable[[], np.ndarray]) -> str:
        both = functools.cache(lambda: quantise_rows(read()))
        quantised = graph.weight(f"{name}.int8", lambda: both()[0].T)
        scales = graph.weight(f"{name}.scale", lambda: both()[1])
        product = graph.node("MatMulInteger", x.value, quantised, graph.constant(128, np.uint8))
        product = graph.node("Cast", product, to=onnx.TensorProto.FLOAT)
        return graph.node("Mul", graph.node("Mul", product, x.row_scale), scales)


def quantise_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 in -127..127 with one float32 scale per row (output channel).

    A scale keeps 16 bits: processors differ in the last bits of a product, and the same folder is to come out of all.
    """
    scales = np.abs(matrix).max(axis=1) / 127
    scales = np.where(scales == 0, 1, scales)
    part, power = np.frexp(scales)
    scales = np.ldexp(np.rint(part * 2**16) / 2**16, power).astype(np.float32)
    return np.rint(matrix / scales[:, None]).astype(np.int8), scales


PRECISIONS = {
    "fp32": FloatPrecision("fp32", np.float32, masked=-1e9),
    # Not the type's minimum: a score added to that would overflow to minus infinity.
    "fp16": FloatPrecision("fp16", np.float16, masked=-3e4),
    "int8": Int8Precision("int8"),
    "int8-plain": Int8Precision("int8-plain"),
}
