"""Writes a folder in onnxruntime-genai's manner: its attention is one GroupQueryAttention node a layer.

    group_query_attention.py TOKENIZER_FOLDER OUT

ONNX Runtime's CPU kernel of that operator refuses several rows on a past, so the worker must run them one by one. The
weights are random from a seed and there is no feed-forward part: the test compares the model with itself.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HIDDEN, HEADS, KV_HEADS, SIZE, POSITIONS = 2, 64, 4, 2, 16, 4096


class Graph:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(11)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), **attributes))
        return outputs[0]

    def constant(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(0, 0.2, shape).astype(np.float32))


def rotary(graph: Graph) -> tuple[str, str]:
    angles = np.outer(np.arange(POSITIONS), 10_000.0 ** (-np.arange(0, SIZE, 2) / SIZE))
    return (
        graph.constant("cos_cache", np.cos(angles).astype(np.float32)),
        graph.constant("sin_cache", np.sin(angles).astype(np.float32)),
    )


def lengths(graph: Graph) -> tuple[str, str]:
    """What the operator wants of the mask: each row's last position, and the padded length with the past."""
    one = graph.constant("one", np.array([1], np.int64))
    graph.add("ReduceSum", ["attention_mask", one], "real", keepdims=0)
    graph.add("Cast", [graph.add("Sub", ["real", one], "last")], "seqlens_k", to=TensorProto.INT32)
    graph.add("Gather", [graph.add("Shape", ["attention_mask"], "mask_shape"), graph.constant("axis", np.array(1))], "total")
    return "seqlens_k", graph.add("Cast", ["total"], "total_length", to=TensorProto.INT32)


def layer(graph: Graph, number: int, x: str, shared: list[str]) -> str:
    widths = {"query": HEADS * SIZE, "key": KV_HEADS * SIZE, "value": KV_HEADS * SIZE}
    made = [graph.add("MatMul", [x, graph.weight(f"{n}_weight.{number}", HIDDEN, w)], f"{n}.{number}") for n, w in widths.items()]
    past = [f"past_key_values.{number}.{part}" for part in ("key", "value")]
    present = [f"present.{number}.{part}" for part in ("key", "value")]
    attention = graph.add(
        "GroupQueryAttention", made + past + shared, f"attention.{number}", *present,
        domain="com.microsoft", num_heads=HEADS, kv_num_heads=KV_HEADS, do_rotary=1,
    )
    projected = graph.add("MatMul", [attention, graph.weight(f"output_weight.{number}", HIDDEN, HIDDEN)], f"projected.{number}")
    return graph.add("Add", [x, projected], f"hidden.{number}")


def model(vocabulary: int) -> onnx.ModelProto:
    graph = Graph()
    value = helper.make_tensor_value_info
    shared = [*lengths(graph), *rotary(graph)]
    x = graph.add("Gather", [graph.weight("embedding", vocabulary, HIDDEN), "input_ids"], "embedded")
    for number in range(LAYERS):
        x = layer(graph, number, x, shared)
    graph.add("MatMul", [x, graph.weight("head", HIDDEN, vocabulary)], "logits")
    parts = [f"{number}.{part}" for number in range(LAYERS) for part in ("key", "value")]
    inputs = [value(name, TensorProto.INT64, ["batch", length]) for name, length in (("input_ids", "seq"), ("attention_mask", "all"))]
    inputs += [value(f"past_key_values.{p}", TensorProto.FLOAT, ["batch", KV_HEADS, "past", SIZE]) for p in parts]
    outputs = [value("logits", TensorProto.FLOAT, ["batch", "seq", vocabulary])]
    outputs += [value(f"present.{p}", TensorProto.FLOAT, ["batch", KV_HEADS, "all", SIZE]) for p in parts]
    made = helper.make_graph(graph.nodes, "decoder", inputs, outputs, initializer=graph.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def main(tokenizer: Path, out: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(tokenizer / name, out / name)
    vocabulary = json.loads((out / "config.json").read_text())["vocab_size"]
    onnx.save(model(vocabulary), out / "model.onnx")
    (out / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": "model.onnx"}}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
