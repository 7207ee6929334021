"""The draft graph: its float form against the float64 equations, and what both forms promise."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from moderato_model.cli import main
from moderato_model.export import Options, export

RANDOM = np.random.RandomState(5)
VOCAB = 500
PROMPT = RANDOM.randint(3, VOCAB, 21).tolist()
ROWS = [RANDOM.randint(3, VOCAB, length).tolist() for length in (23, 1, 9)]
CAPACITY = 64


class Rows:
    """Rows of one draft graph in float, their keys and values in buffers bound as past and as present."""

    def __init__(self, path, rows: int):
        self.session = ort.InferenceSession(path / "draft.onnx", providers=["CPUExecutionProvider"])
        past = [i for i in self.session.get_inputs() if i.name.startswith("past_key_values")]
        dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[past[0].type]
        # What no row has written is no number, so that a graph which read it would be seen.
        self.buffers = {i.name: np.full((rows, i.shape[1], CAPACITY, i.shape[3]), np.nan, dtype) for i in past}
        self.lengths = np.zeros(rows, np.int64)

    def run(self, rows: slice, ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next ids and their logits, and all logits, of rows that lie beside each other."""
        binding, kept = self.session.io_binding(), []
        for name, buffer in self.buffers.items():
            # A view: what is bound is the buffer's own memory.
            value = ort.OrtValue.ortvalue_from_numpy(buffer[rows])
            kept.append(value)
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_cpu_input("input_ids", np.array(ids, np.int64))
        binding.bind_cpu_input("lengths", self.lengths[rows])
        names = ["next_ids", "next_logits", "logits"]
        for name in names:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        for (name, buffer), value in zip(self.buffers.items(), kept, strict=True):
            buffer[rows] = value.numpy()
        self.lengths[rows] += len(ids[0])
        return tuple(binding.get_outputs()[-3:][index].numpy() for index in range(3))


@pytest.fixture(scope="module")
def drafting(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("draft") / "both"
    export(tiny, out, Options(precisions=("fp32", "int8"), tasks=("classify", "draft")))
    return out


def test_rows_that_join_one_by_one_and_go_on_together_follow_the_equations(drafting, tiny_reference):
    rows = Rows(drafting, len(ROWS))
    texts = [PROMPT + row for row in ROWS]
    for index, text in enumerate(texts):
        # The prompt first, then the row behind it, as a worker copies the one and runs the other.
        rows.run(slice(index, index + 1), [PROMPT])
        ids, _, logits = rows.run(slice(index, index + 1), [text[len(PROMPT) :]])
        assert np.abs(logits[0] - tiny_reference.logits(text)[-1]).max() < 1e-4
        text.append(int(ids[0]))
    for _ in range(6):
        ids, greatest, logits = rows.run(slice(0, len(ROWS)), [[text[-1]] for text in texts])
        for index, text in enumerate(texts):
            expected = tiny_reference.logits(text)[-1]
            assert np.abs(logits[index] - expected).max() < 1e-4
            assert ids[index] == expected.argmax() and abs(greatest[index] - expected.max()) < 1e-4
            text.append(int(ids[index]))


def test_leading_rows_go_on_alone(drafting, tiny_reference):
    rows = Rows(drafting, len(ROWS))
    for index, row in enumerate(ROWS):
        rows.run(slice(index, index + 1), [row])
    _, _, logits = rows.run(slice(0, 2), [[7], [9]])
    for index, token in enumerate((7, 9)):
        assert np.abs(logits[index] - tiny_reference.logits([*ROWS[index], token])[-1]).max() < 1e-4


def test_half_precision_drafts_within_its_rounding(tiny, tiny_reference, tmp_path):
    export(tiny, tmp_path / "out", Options(precisions=("fp16",), tasks=("draft",)))
    rows = Rows(tmp_path / "out", 1)
    rows.run(slice(0, 1), [PROMPT])
    _, _, logits = rows.run(slice(0, 1), [ROWS[0]])
    assert logits.dtype == np.float32
    assert np.abs(logits[0] - tiny_reference.logits(PROMPT + ROWS[0])[-1]).max() < 5e-2


def test_the_manifest_names_the_draft_graphs_and_nothing_else_changes(tiny, drafting, tmp_path):
    export(tiny, tmp_path / "out", Options(precisions=("fp32", "int8")))
    for name in ("classify.onnx", "classify.int8.onnx", "full.onnx"):
        assert (tmp_path / "out" / name).read_bytes() == (drafting / name).read_bytes()
    graphs = json.loads((drafting / "manifest.json").read_text())["graphs"]
    contract = "moderato/draft/1"
    assert graphs["draft"] == {"file": "draft.onnx", "contract": contract, "precision": "fp32"}
    assert graphs["draft.int8"] == {"file": "draft.int8.onnx", "contract": contract, "precision": "int8"}
    assert not list((tmp_path / "out").glob("draft*"))


def test_a_task_is_chosen_on_the_command_line(tmp_path, capsys):
    assert main(["tiny", str(tmp_path / "out"), "--task", "draft"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.onnx")) == ["draft.onnx", "full.onnx"]
    with pytest.raises(SystemExit):
        main(["tiny", str(tmp_path / "other"), "--task", "paint"])
    assert "'paint' is none of classify, draft" in capsys.readouterr().err


def test_a_float_draft_graph_adds_no_weight_to_the_folder(tiny, tmp_path):
    export(tiny, tmp_path / "one", Options())
    export(tiny, tmp_path / "two", Options(tasks=("classify", "draft")))
    assert (tmp_path / "one" / "weights.bin").read_bytes() == (tmp_path / "two" / "weights.bin").read_bytes()


def test_the_int8_form_reads_the_prompt_once_for_all_rows(drafting):
    graph = onnx.load(drafting / "draft.int8.onnx", load_external_data=False).graph
    operators = [node.op_type for node in graph.node if node.domain == "moderato"]
    assert {name: operators.count(name) for name in operators} == {
        "AddNormQuantize": 5,
        "DraftAttention": 2,
        "SwiGluQuantize": 2,
    }
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["prompt_key_values.1.key"] == [1, 2, 16, "prompt"]
    assert shapes["prompt_key_values.1.value"] == [1, 2, "prompt", 16]
    assert shapes["past_key_values.0.key"] == shapes["present.0.key"] == ["batch", 2, 16, "capacity"]
    assert shapes["past_key_values.0.value"] == shapes["present.0.value"] == ["batch", 2, "capacity", 16]
    assert shapes["next_ids"] == shapes["next_logits"] == shapes["lengths"] == ["batch"]
    assert shapes["logits"] == ["batch", 546]
