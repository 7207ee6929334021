"""Who takes part: one row of the table each."""

from dataclasses import dataclass, field

BATCHES = (1, 8, 16, 32)


@dataclass(frozen=True)
class Entry:
    name: str
    file: str
    how: str
    settings: dict = field(default_factory=dict)
    # Batch sizes to choose from; a peer that takes one post at a time has one.
    batches: tuple[int, ...] = (1,)
    # Runs the whole prompt for every post: gets fewer posts a round, for each takes ten times as long.
    naive: bool = False
    ours: bool = False


MODEL = "misinformation"  # below the models' folder; holds int8 as well
BASELINE = "ONNX Runtime, naive"


def roster() -> list[Entry]:
    entries = [
        Entry(f"moderato {precision}", "worker.py", "its own batches", {"precision": precision}, ours=True)
        for precision in ("int8", "fp32")
    ]
    # The int8 graph has operators of the worker's own, so only fp32 runs without it.
    entries.append(
        Entry("moderato's graph in Python, fp32", "cascade.py", "prompt shared", {}, (1, 4, *BATCHES[1:]), ours=True)
    )
    entries += [
        Entry(BASELINE, "naive.py", "fp32, whole prompt each time", naive=True),
    ]
    for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
        name, settings = f"transformers {short}", {"dtype": dtype}
        entries += [
            Entry(f"{name}, naive", "hf.py", "whole prompt each time", settings | {"shared": False}, naive=True),
            Entry(f"{name}, shared", "hf.py", "prompt cache by hand", settings | {"shared": True}, BATCHES),
        ]
    for weights in ("Q8_0", "Q4_1", "BF16"):
        settings = {"weights": weights}
        entries.append(Entry(f"llama.cpp {weights}", "llama.py", "prompt shared by seq_cp", settings, BATCHES))
    for precision in ("fp32", "int8"):
        settings = {"precision": precision}
        entries.append(Entry(f"onnxruntime-genai {precision}", "genai.py", "rewind_to the prompt's end", settings))
    for weights, precision in (("F16", "f32"), ("F16", "bf16"), ("Q8_0", "bf16")):
        settings = {"weights": weights, "precision": precision}
        name = f"OpenVINO GenAI {weights}, {precision}"
        entries.append(Entry(name, "openvino_paged.py", "its prefix cache", settings, BATCHES))
    return entries


def draft_roster() -> list[Entry]:
    """Who writes text, each for one row and for eight."""
    batches = (1, 8)
    entries = [
        Entry(f"moderato {precision}", "worker_draft.py", "prompt shared", {"precision": precision}, batches, ours=True)
        for precision in ("int8", "fp32")
    ]
    for precision in ("int4", "int8"):
        settings, how = {"precision": precision}, "one past and present buffer"
        entries.append(Entry(f"onnxruntime-genai {precision}", "genai_draft.py", how, settings, batches))
    for weights, precision in (("Q8_0", "f32"), ("Q8_0", "bf16")):
        settings = {"weights": weights, "precision": precision}
        name = f"OpenVINO GenAI {weights}, {precision}"
        entries.append(Entry(name, "openvino_draft.py", "paged attention, its prefix cache", settings, batches))
    return entries
