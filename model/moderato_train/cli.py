"""The command line of training. Exit codes: 0 done, 1 cannot be done, 2 wrong usage."""

import argparse
import hashlib
import json
import os
import random
import sys
from pathlib import Path

DESCRIPTION = """\
Trains a LoRA adapter for a policy's labels: labelled JSONL in, an adapter folder in PEFT's form out, which
`python -m moderato_model export --adapter` merges into a model folder.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    from moderato_model.errors import ExportError

    from .rows import DataError

    try:
        (_notes if options.task == "notes" else _labels_of_posts)(options)
    except (DataError, ExportError, OSError) as error:
        print(f"moderato_train: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moderato_train", description=DESCRIPTION)
    parser.add_argument("base", help="`default`, a Hugging Face folder, or a .gguf file")
    parser.add_argument("out", type=Path, help="the adapter folder to write")
    parser.add_argument("--task", choices=("labels", "notes"), default="labels", help="labels of posts (default), or notes")
    parser.add_argument("--model", type=Path, required=True, help="a model folder of the base: its tokenizer is used")
    parser.add_argument("--program", type=Path, default=Path("target/release/moderato"), help="the worker, which tokenises")
    parser.add_argument("--policy", type=Path, action="append", required=True, help="policy file; with several, each batch takes one, the first four times as often")
    parser.add_argument("--train", action="append", required=True, metavar="FILE[@SHARE]", help="labelled JSONL, or a share of it")
    parser.add_argument("--val", action="append", required=True, metavar="FILE[@SHARE]")
    parser.add_argument("--exclude", action="append", default=[], metavar="FILE", help="JSONL whose texts must not be trained on")
    parser.add_argument("--leave-out", action="append", default=[], metavar="FAMILY", help="attack family not to train on: one of our own, or what `attack` says in a data file")
    parser.add_argument("--leave-source-out", action="append", default=[], metavar="SOURCE", help="rows of this source are not trained on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=160, help="post and evidence together")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--first-layer", type=int, default=0)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--smoothing", type=float, default=0.02)
    parser.add_argument("--balance", type=float, default=0.5)
    parser.add_argument("--attacks", type=float, default=0.1, help="share of posts that are attacked in each epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch on a CPU (default: one a core)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile; wants a C++ compiler")
    parser.add_argument("--from", type=Path, metavar="FOLDER", dest="start", help="begin with this adapter, of the same rank and first layer, and not from nothing")
    parser.add_argument("--resume", action="store_true", help="go on where OUT was left")
    return parser


def _labels_of_posts(options: argparse.Namespace) -> None:
    import numpy as np

    from . import rows
    from .attacks import FAMILIES
    from .objectives import Labels, Rows

    draw = random.Random(options.seed)
    labels, answers = _labels(options.policy[0])
    worker = rows.Worker(options.program, options.model, options.max_tokens)
    prompts = [worker.prompt(policy) for policy in options.policy]
    tested = {rows.plain(json.loads(line)["text"]) for name in options.exclude for line in open(name, encoding="utf-8")}
    train = [example for source in options.train for example in rows.read(source, labels, draw, (*options.leave_source_out, *options.leave_out))]
    train = rows.without(train, tested)
    val = [example for source in options.val for example in rows.read(source, labels, draw)]
    families = [family for family in FAMILIES if family not in options.leave_out]
    epochs = [rows.varied(train, answers, families, options.attacks, draw) for _ in range(options.epochs)]
    tokenised = [Rows(worker.rows(options.policy[0], epoch), [e.label for e in epoch]) for epoch in epochs]
    val_rows = Rows(worker.rows(options.policy[0], val), [e.label for e in val])
    counts = np.bincount([example.label for example in train], minlength=len(labels))
    log = _log(options.out)
    log(f"{len(train)} rows an epoch, {sum(map(len, tokenised[0].ids))} tokens; labels {dict(zip(labels, counts.tolist()))}")

    objective = Labels(prompts[0].labels, counts / counts.sum(), options.balance, options.smoothing, options.device)
    _train(options, objective, prompts, tokenised, val_rows, log)


def _notes(options: argparse.Namespace) -> None:
    from . import rows
    from .objectives import Notes, Rows

    draw = random.Random(options.seed)
    worker = rows.Worker(options.program, options.model, options.max_tokens)
    prompts = [worker.note_prompt(policy) for policy in options.policy]

    def tokenised(sources: list[str]) -> tuple[Rows, int]:
        examples = [example for source in sources for example in rows.read_notes(source, draw)]
        ids, notes, refused = worker.notes(options.policy[0], examples)
        return Rows(ids, notes), refused

    train, refused = tokenised(options.train)
    val, _ = tokenised(options.val)
    log = _log(options.out)
    log(f"{len(train.ids)} notes an epoch, {sum(map(len, train.ids))} tokens; {refused} that the checks refuse are left out")
    _train(options, Notes(options.device), prompts, [train] * options.epochs, val, log)


def _train(options: argparse.Namespace, objective, prompts, epochs, val, log) -> None:
    import torch

    from . import adapter
    from .llama import Llama, Lora
    from .rows import split
    from .train import Schedule, Trainer

    _keep_memory()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    checkpoint = _checkpoint(options.base)
    lora = Lora(options.rank, 2 * options.rank, options.first_layer, options.dropout)
    model = Llama(checkpoint, lora, options.seed, options.compile)
    start = adapter.load(model, options.start) if options.start else None
    schedule = Schedule(options.batch, 64 * options.batch, options.learning_rate, 0.01, 0.03, options.seed)
    trainer = Trainer(model.to(options.device), objective, [p.prefix for p in prompts], schedule, options.device)
    card = {
        "base": checkpoint.name,
        "base_sha256": checkpoint.source.sha256,
        "data": {"/".join(Path(source).parts[-2:]): _sha256(split(source)[0]) for source in options.train},
        "rows": len(epochs[0].ids),
        "epochs": options.epochs,
        "prompts": [prompt.digest for prompt in prompts],
        "left_out": options.leave_out + options.leave_source_out,
        "torch": torch.__version__,
        "from": start,
    }
    torch.manual_seed(options.seed)
    if options.resume:
        trainer.resume(options.out)
    trainer.run(epochs, val, options.out, card, log)


def _keep_memory() -> None:
    """Freed memory stays with the process: giving every tensor back to Linux and asking anew took half of the time."""
    import ctypes

    trim_threshold, mmap_max = -1, -4
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)
    except (AttributeError, OSError):
        pass  # Not glibc: its allocator decides.


def _checkpoint(base: str):
    from moderato_model.cli import open_source
    from moderato_model.default_model import default_checkpoint

    return default_checkpoint() if base == "default" else open_source(Path(base))


def _labels(policy: Path) -> tuple[list[str], list[str]]:
    """Ids and answers of a policy's labels."""
    import yaml

    text = policy.read_text(encoding="utf-8")
    if policy.suffix == ".md":
        text = text.split("---\n")[1]
    labels = yaml.safe_load(text)["labels"]
    return [label["id"] for label in labels], [label["answer"].strip() for label in labels]


def _sha256(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def _log(out: Path):
    out.mkdir(parents=True, exist_ok=True)
    file = (out / "training.log").open("a", encoding="utf-8")

    def log(line: str) -> None:
        print(line, flush=True)
        file.write(line + "\n")
        file.flush()

    return log
