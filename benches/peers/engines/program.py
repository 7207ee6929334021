"""Calls moderato's program: MODERATO_BENCH_PROGRAM, or what `make build` made."""

import json
import os
import subprocess
from pathlib import Path

import onnxruntime
from serve import LeftOut

# The policy's prompt is lengthened to this, for every engine alike: what a policy with examples takes.
PROMPT_TOKENS = 400
# Beside the model that judges: the same numbers, and the graphs that write.
DRAFT_MODEL = "notes"
ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("MODERATO_BENCH_PROGRAM", ROOT / "target/release/moderato"))


def version() -> str:
    if not PROGRAM.is_file():
        raise LeftOut(f"{PROGRAM.name} is not built; `make build` makes it")
    if subprocess.run([PROGRAM, "bench", "--help"], capture_output=True).returncode != 0:
        raise LeftOut("the program has no verb `bench`")
    told = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True).stdout
    return f"{told.strip()}, ONNX Runtime {onnxruntime.__version__}"


def write_config(folder: Path, model: Path) -> Path:
    """One thread; broker and cache are named because a configuration has them, and are not used."""
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    config = {
        "kafka": {
            "brokers": "127.0.0.1:9092",
            "group": "bench",
            "topics": {"posts": "posts", "verdicts": "verdicts", "dead_letters": "dead-letters"},
        },
        "model": {"path": str(model), "onnxruntime": str(library), "device": "cpu", "instances": 1, "threads": 1},
        "policy": str(ROOT / "model/policies/misinformation.yaml"),
        "cache": {"kind": "off"},
    }
    path = folder / "moderato.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def bench(config: Path, posts: Path, *arguments) -> str:
    """Standard output of one run; MODERATO_BENCH_SET holds further `key=value` settings, parted by blanks."""
    settings = [word for pair in os.environ.get("MODERATO_BENCH_SET", "").split() for word in ("--set", pair)]
    return _told("-c", config, "--posts", posts, "--seconds", "4", *settings, *arguments)


def draft(config: Path, precision: str, request: dict) -> str:
    """One round: rows as long as those asked for, so many at once, each with so many tokens."""
    rows = request["rows"]
    sizes = {"--rows": len(rows), "--post-tokens": len(rows[0]), "--new-tokens": request["tokens"], "--seconds": 0.01}
    sizes = [word for name, size in sizes.items() for word in (name, str(size))]
    return _told("-c", config, "--task", "draft", "--precisions", precision, "--json", *sizes)


def _told(*arguments) -> str:
    command = [PROGRAM, "bench", "--prompt-tokens", str(PROMPT_TOKENS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LeftOut(f"moderato bench ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout
