"""One model in the form that each engine loads, all made from the numbers of one checkpoint.

    python forms.py FOLDER      # makes what is missing in FOLDER, and says what

Needs the exporter on PYTHONPATH. A form is made beside its place and moved there whole.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import gqa_graph
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from moderato_model.checkpoint import Checkpoint
from moderato_model.default_model import _locate, default_checkpoint
from safetensors.numpy import save_file

# Q4_1 is the checkpoint's own file.
GGUF_TYPES = ("Q8_0", "BF16", "F16")
OPENVINO_WEIGHTS = ("F16", "Q8_0")


def hugging_face(checkpoint: Checkpoint, folder: Path) -> None:
    """What transformers loads: fp32 safetensors."""
    names = sorted(checkpoint.tensor_names)
    tensors = {name: np.ascontiguousarray(checkpoint.read(name)) for name in names}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(checkpoint.config, indent=2))


def requantise(source: Path, target: Path, name: str) -> None:
    """A GGUF file with the same metadata and every matrix of `source` in another type; norms stay float32."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        # The writer makes these itself.
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        if field.name == "general.file_type":
            writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        numbers = numbers.reshape([int(length) for length in reversed(tensor.shape)])
        kind = GGMLQuantizationType[name] if numbers.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def openvino(source: Path, folder: Path) -> None:
    """OpenVINO's own form, as its reader of GGUF files makes and saves it."""
    import openvino_genai

    copy = folder / "model.gguf"
    shutil.copyfile(source, copy)
    openvino_genai.LLMPipeline(copy, "CPU", enable_save_ov_model=True)
    copy.unlink()


def make(target: Path, write) -> None:
    """Calls `write` on a path beside `target`, a folder if the target's name has no ending.

    What cannot be made is told and left out: its engine then names the missing file in the table.
    """
    if target.exists():
        return
    print(f"making {target.name}", flush=True)
    partial = target.with_name("partial." + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.unlink(missing_ok=True)
    if not target.suffix:
        partial.mkdir()
    try:
        write(partial)
        partial.rename(target)
    except Exception as error:
        print(f"{target.name} could not be made: {error}", file=sys.stderr)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, (source, _) = default_checkpoint(), _locate()
    make(folder / "huggingface", lambda path: hugging_face(checkpoint, path))
    for precision in ("fp32", "int8"):
        make(folder / f"genai-{precision}", lambda path: gqa_graph.write_folder(checkpoint, path, precision))
    for precision in ("int4", "int8"):
        drafting = gqa_graph.build_for_drafting
        make(
            folder / f"genai-draft-{precision}",
            lambda path: gqa_graph.write_folder(checkpoint, path, precision, drafting),
        )
    for name in GGUF_TYPES:
        make(folder / f"{name}.gguf", lambda path: requantise(source, path, name))
    make(folder / "Q4_1.gguf", lambda path: shutil.copyfile(source, path))
    for name in OPENVINO_WEIGHTS:
        make(folder / f"openvino-{name}", lambda path: openvino(folder / f"{name}.gguf", path))


if __name__ == "__main__":
    main()
