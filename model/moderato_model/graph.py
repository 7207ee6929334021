"""A thin builder over onnx.helper: values are names, constants and weights are declared by use."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from . import EXPORTER_NAME, EXPORTER_VERSION
from .weights import WeightFile

OPSET = 23
IR_VERSION = 11


class Graph:
    """Collects the nodes of one ONNX graph."""

    def __init__(self, name: str, weights: WeightFile):
        self._name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._known: list[onnx.ValueInfoProto] = []

    def node(self, op: str, *inputs: str, out: str | None = None, **attributes) -> str:
        """Adds a node with one output and returns its name (`out`, or one made up)."""
        return self.split_node(op, *inputs, outs=(out or f"{op}_{len(self._nodes)}",), **attributes)[0]

    def split_node(self, op: str, *inputs: str, outs: tuple[str, ...] | int, **attributes) -> tuple[str, ...]:
        """Adds a node with several outputs, given by name or by number."""
        if isinstance(outs, int):
            outs = tuple(f"{op}_{len(self._nodes)}_{i}" for i in range(outs))
        self._nodes.append(helper.make_node(op, inputs, outs, name=f"{op}_{len(self._nodes)}", **attributes))
        return outs

    def constant(self, value, dtype=np.int64) -> str:
        """A small constant inside the graph; equal ones are stored once."""
        array = np.asarray(value, dtype)
        name = f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        if name not in self._initializers:
            self._initializers[name] = onnx.numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """A tensor of the shared weight file."""
        if name not in self._initializers:
            self._initializers[name] = self._weights.reference(name, make)
        return name

    def input(self, name: str, dtype, dims: list) -> str:
        self._inputs.append(_value_info(name, dtype, dims))
        return name

    def output(self, name: str, dtype, dims: list) -> None:
        self._outputs.append(_value_info(name, dtype, dims))

    def known(self, value: str, dtype, dims: list) -> str:
        """Declares the shape of a value that shape inference cannot follow.

        Without it ONNX Runtime cannot tell which buffers fit each other: its memory planner then takes
        seconds on a deep graph, and reuses nothing.
        """
        self._known.append(_value_info(value, dtype, dims))
        return value

    def dimension(self, value: str, axis: int) -> str:
        """The length of one axis, as a one-element tensor."""
        return self.node("Shape", value, start=axis, end=axis + 1)

    def dims(self, *parts: str | int) -> str:
        """A shape tensor from one-element tensors and numbers."""
        return self.node("Concat", *(self.constant([p]) if isinstance(p, int) else p for p in parts), axis=0)

    def model(self) -> onnx.ModelProto:
        others = [helper.make_opsetid(name, 1) for name in sorted({node.domain for node in self._nodes} - {""})]
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            self._outputs,
            list(self._initializers.values()),
            value_info=self._known,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), *others],
            ir_version=IR_VERSION,
            producer_name=EXPORTER_NAME,
            producer_version=EXPORTER_VERSION,
        )


def _value_info(name: str, dtype, dims: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims)
