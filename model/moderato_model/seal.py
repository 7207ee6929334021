"""Writes the manifest of a folder that another tool exported, after looking at what its graphs take."""

from pathlib import Path

import onnx

from . import classify, draft, full, manifest
from .checkpoint import Source, combined_sha256
from .errors import ExportError

NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
PRECISIONS = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}


def seal(folder: Path, name: str, license: str) -> None:
    """The precision recorded is that of the keys and values; how weights are stored is the graph's own affair."""
    missing = [needed for needed in NEEDED if not (folder / needed).is_file()]
    if missing:
        raise ExportError(f"{folder}: {', '.join(missing)} missing; the worker needs them beside the graph")
    graphs: dict[str, dict[str, str]] = {}
    precisions = set()
    for path in sorted(folder.rglob("*.onnx")):
        relative = path.relative_to(folder).as_posix()
        role, contract, precision = _recognise(path)
        if role in graphs:
            raise ExportError(f"{folder}: {graphs[role]['file']} and {relative} are both a {role} graph; keep one")
        graphs[role] = {"file": relative, "contract": contract}
        precisions.add(precision)
    if "full" not in graphs:
        raise ExportError(f"{folder}: no ONNX graph with input_ids and past_key_values.0.key; export one with a past")
    if len(precisions) > 1:
        raise ExportError(f"{folder}: the graphs keep keys and values in different types: {sorted(precisions)}")

    files = manifest.describe_files(folder)
    digest = combined_sha256((file["path"], file["sha256"]) for file in files)
    source = Source("huggingface", folder.resolve().name, digest)
    manifest.write_manifest(folder, manifest.Identity(name, license, source, precisions.pop(), graphs))


def _recognise(path: Path) -> tuple[str, str, str]:
    """Role, contract and precision of one graph, told by its inputs."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # onnx raises protobuf's own errors, which differ between its versions
        raise ExportError(f"{path}: not a readable ONNX file: {error}") from error
    inputs = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    if {"x", "attn_mask", "k_cache", "v_cache", "pos"} <= inputs.keys():
        raise ExportError(
            f"{path}: this is Microsoft's Llama-2-Onnx contract (x, attn_mask, k_cache, v_cache, pos), which the "
            "worker does not speak; export the checkpoint with this tool or with Optimum"
        )
    key = "past_key_values.0.key"
    if "input_ids" not in inputs or key not in inputs:
        known = ", ".join(inputs)
        raise ExportError(f"{path}: inputs {known} are of no known contract; input_ids and {key} are needed")
    if "use_cache_branch" in inputs:
        raise ExportError(f"{path}: a merged decoder (use_cache_branch); export the decoder with past alone")
    if inputs[key] not in PRECISIONS:
        kind = onnx.TensorProto.DataType.Name(inputs[key])
        raise ExportError(f"{path}: keys and values are {kind}; float32 and float16 are supported")
    role, contract = "full", full.CONTRACT
    if {"logit_positions", "label_ids"} <= inputs.keys():
        role, contract = "classify", classify.CONTRACT
    elif "lengths" in inputs:
        role, contract = "draft", draft.CONTRACT
    return role, contract, PRECISIONS[inputs[key]]
