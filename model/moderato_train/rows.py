"""Labelled posts to rows of token ids, made by the worker itself.

`moderato tokens` cleans, masks, cuts and tokenises, so a model is trained on exactly what the worker will show it.
"""

import json
import random
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from . import attacks


class DataError(Exception):
    """What is wrong with a data file, and where."""


@dataclass(frozen=True)
class Example:
    text: str
    label: int
    evidence: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Drafted:
    """A post with its verdict's label, its evidence, and the note that is wanted."""

    text: str
    label: str
    evidence: list[dict]
    note: str


@dataclass(frozen=True)
class Prompt:
    """The ids around every post under one policy."""

    prefix: list[int]
    tail: list[int]
    labels: list[int]
    digest: str


@dataclass(frozen=True)
class Worker:
    """The program that tokenises, for one model folder."""

    program: Path
    model: Path
    max_tokens: int

    def prompt(self, policy: Path) -> Prompt:
        around = self._tokens(policy, [])[0]
        return Prompt(around["prefix"], around["tail"], around["labels"], around["prompt_digest"])

    def rows(self, policy: Path, examples: list[Example]) -> list[list[int]]:
        posts = [
            json.dumps({"id": str(n), "text": example.text, "evidence": example.evidence})
            for n, example in enumerate(examples)
        ]
        return [row["ids"] for row in self._tokens(policy, posts)[1:]]

    def note_prompt(self, policy: Path) -> Prompt:
        around = self._tokens(policy, [], "draft_note")[0]
        return Prompt(around["prefix"], around["tail"], [], around["prompt_digest"])

    def notes(self, policy: Path, examples: list[Drafted]) -> tuple[list[list[int]], list[int], int]:
        """Ids of message and note, the note's share of each, and how many notes the worker's own checks refuse."""
        lines = [json.dumps({"id": str(n)} | vars(example)) for n, example in enumerate(examples)]
        rows = self._tokens(policy, lines, "draft_note")[1:]
        kept = [row for row in rows if not row["refused"]]
        return [row["ids"] + row["note"] for row in kept], [len(row["note"]) for row in kept], len(rows) - len(kept)

    def _tokens(self, policy: Path, lines: list[str], task: str = "classify") -> list[dict]:
        command = [self.program, "tokens", "--model", self.model, "--policy", policy]
        command += ["--set", f"limits.max_input_tokens={self.max_tokens}", "--set", "limits.on_overlong=truncate_middle", "--set", f"task={task}"]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
        if done.returncode:
            raise DataError(f"moderato tokens: {done.stderr.strip()[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def read(source: str, labels: list[str], draw: random.Random, left_out: tuple[str, ...] = ()) -> list[Example]:
    """`FILE` or `FILE@SHARE`: lines with text, label and perhaps evidence (a text, or pieces with id and quote).

    Lines whose field `source` or `attack` is in `left_out` are passed over.
    """
    name, share = split(source)
    examples = []
    with open(name, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                text, label = row["text"], row["label"]
                evidence = _evidence(row.get("evidence"))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{name}, line {number}: {error!r}; each line is JSON with text and label") from error
            if label not in labels:
                raise DataError(f"{name}, line {number}: label {label!r} is none of the policy's: {', '.join(labels)}")
            if text.strip() and row.get("source") not in left_out and row.get("attack") not in left_out:
                examples.append(Example(text, labels.index(label), evidence))
    return [example for example in examples if draw.random() < share]


def split(source: str) -> tuple[str, float]:
    """The file's name and the share of it that is taken."""
    name, _, share = source.rpartition("@")
    try:
        return (name, float(share)) if name else (source, 1.0)
    except ValueError:
        # The @ belongs to the name.
        return source, 1.0


def read_notes(source: str, draw: random.Random) -> list[Drafted]:
    """`FILE` or `FILE@SHARE`: lines with text, label, evidence and note. A note that cites nothing cites all its evidence."""
    name, share = split(source)
    drafted = []
    with open(name, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                evidence, note = _evidence(row["evidence"]), row["note"].strip()
                if not re.search(r"\[\w+\]", note):
                    note = f"{note.rstrip('. ')} [{', '.join(piece['id'] for piece in evidence)}]."
                drafted.append(Drafted(row["text"], row["label"], evidence, note))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                message = "each line is JSON with text, label, evidence and note"
                raise DataError(f"{name}, line {number}: {error!r}; {message}") from error
    return [example for example in drafted if draw.random() < share]


def _evidence(value) -> list[dict]:
    if not value:
        return []
    if isinstance(value, str):
        return [{"id": "e1", "quote": value}]
    return [{key: piece[key] for key in ("id", "quote", "publisher") if piece.get(key)} for piece in value]


def without(examples: list[Example], texts: set[str]) -> list[Example]:
    """Each question once, and none that is in `texts` (of `plain`): what is tested is not trained on."""
    kept, seen = [], set()
    for example in examples:
        question = (plain(example.text), bool(example.evidence))
        if question[0] not in texts and question not in seen:
            seen.add(question)
            kept.append(example)
    return kept


def plain(text: str) -> str:
    """Letters and digits in lower case, without links and handles: what two copies of a post have in common."""
    return re.sub(r"[^a-z0-9]+", " ", re.sub(r"https?://\S+|@\w+", " ", text.lower())).strip()


def varied(examples: list[Example], answers: list[str], families: list[str], share: float, draw: random.Random) -> list[Example]:
    """One epoch's texts: some in lower case, some without their last mark, `share` of them attacked."""
    out = []
    for example in examples:
        text, chance = example.text, draw.random()
        if chance < share and families:
            target = draw.choice([answer for answer in answers if answer != answers[example.label]])
            text = attacks.attack(text, answers, target, draw.choice(families), draw)
        elif chance < share + 0.08:
            text = text.lower()
        elif chance < share + 0.12:
            text = text.rstrip(".!?… ") or text
        out.append(Example(text, example.label, example.evidence))
    return out
