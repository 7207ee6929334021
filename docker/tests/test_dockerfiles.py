"""What the Dockerfile promises, as far as it can be read; docker/tests/debootstrap runs its steps."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BUILD = (ROOT / "docker/build").read_text()
PINNED = re.compile(r"^[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}$")
TARGETS = ["cpu", "cuda", "tensorrt"]


def stages() -> dict[str, tuple[str, list[str]]]:
    """Stage name -> what it is made from, and its instructions with continued lines joined."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in DOCKERFILE.replace("\\\n", "").splitlines():
        if begin := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = begin[2]
            found[name] = (begin[1], [])
        elif name and line and not line.startswith("#"):
            found[name][1].append(line)
    return found


def instructions(target: str) -> list[str]:
    """All instructions of a target, those of the stages below it first."""
    base, own = stages()[target]
    return (instructions(base) if base in stages() else []) + own


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert hadolint, "install docker/tests/requirements.txt"
    told = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "")


def test_every_base_is_pinned_by_its_digest():
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    bases = {base for base, _ in stages().values()} - set(stages()) - {"scratch"}
    assert bases == {"${RUST}", "${DEBIAN}"}
    for base in bases:
        assert PINNED.match(defaults[base.strip("${}")])
    assert PINNED.match(DOCKERFILE.splitlines()[0].removeprefix("# syntax="))


@pytest.mark.parametrize("target", TARGETS)
def test_process_1_is_moderato_under_a_numeric_user(target):
    told = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in instructions(target)}
    assert told["ENTRYPOINT"] == '["/usr/local/bin/moderato"]'
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", told["USER"])
    assert "STOPSIGNAL" not in told


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_it_is(target):
    labels = next(line for line in instructions(target) if line.startswith("LABEL"))
    for label in ["title", "description", "licenses", "version", "revision", "created", "base.name"]:
        assert f"org.opencontainers.image.{label}=" in labels


def test_the_label_tells_the_programs_version():
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert f"\nARG VERSION={version}\n" in DOCKERFILE


def test_the_compiler_is_in_no_image():
    for target in TARGETS:
        base = target
        while base in stages():
            assert base not in ("build", "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt-libraries")
            base = stages()[base][0]
        assert base == "${DEBIAN}"


def test_no_model_and_nothing_that_git_does_not_keep_reaches_the_build():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    assert lines[0] == "*" and all(line.startswith("!") for line in lines[1:])
    for path in (line[1:] for line in lines[1:]):
        tracked = subprocess.run(["git", "ls-files", "--", path], cwd=ROOT, capture_output=True, text=True, check=True)
        assert tracked.stdout, f"{path} is let in and git has no such file"
    assert not re.search(r"\.(onnx|gguf|safetensors)\b|weights\.bin", DOCKERFILE + BUILD)


def test_every_file_that_is_copied_is_let_in():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [part for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for part in line.split()]
    assert copied and all(any(path == a or path.startswith(a + "/") for a in allowed) for path in copied)


def test_onnxruntime_is_the_version_that_make_installs():
    made = re.search(r"^onnxruntime==(\S+)", (ROOT / "model/requirements.txt").read_text(), re.MULTILINE)[1]
    cuda = re.search(r"^onnxruntime-gpu==(\S+)", (ROOT / "docker/requirements-cuda.txt").read_text(), re.MULTILINE)[1]
    assert made == cuda
    assert f"libonnxruntime.so.{made}\n" in DOCKERFILE


def test_every_wheel_is_proved_by_its_hash():
    assert BUILD.count("pip download") == 1 and "--require-hashes" in BUILD
    for block in re.split(r"\n(?=\S)", (ROOT / "docker/requirements-cuda.txt").read_text()):
        assert block.startswith("#") or "--hash=sha256:" in block


def test_the_rust_of_the_image_is_new_enough():
    wanted = re.search(r'^rust-version = "(\d+)\.(\d+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    has = re.search(r"^ARG RUST=rust:(\d+)\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert tuple(map(int, has.groups())) >= tuple(map(int, wanted.groups()))
