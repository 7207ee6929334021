"""The work that all engines share: one prompt, and the project's sample posts cut or joined to one length.

The worker itself says which token ids it makes of them (`moderato bench --dump-rows`), and every engine is given
those. Until there is a worker to ask, the ids are made here by the same rules.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "src/samples.jsonl"
POLICY = ROOT / "model/policies/misinformation.yaml"
# Tokens of a row: the post and the prompt's tail.
LENGTH = 60
MARKER = "MODERATO-POST"
# A post with prompt tags in it would be made plain by the worker, and would not be cut to the same length twice.
TAG_SIGNS = str.maketrans("", "", "<|>[]")


@dataclass(frozen=True)
class Workload:
    prompt: list[int]
    label_names: list[str]
    labels: list[int]
    rows: list[list[int]]


class Prompt:
    """The policy in the model's chat template, split around the post."""

    def __init__(self, model: Path):
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        config = json.loads((model / "tokenizer_config.json").read_text())
        self._policy = yaml.safe_load(POLICY.read_text())
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        messages = [
            {"role": "system", "content": self._policy["prompt"].strip()},
            {"role": "user", "content": MARKER},
        ]
        text = environment.from_string(config["chat_template"]).render(
            messages=messages, add_generation_prompt=True, bos_token=config["bos_token"], eos_token=config["eos_token"]
        )
        before, after = text.split(MARKER)
        self.start, self.tail = self.encode(before), self.encode(after)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def workload(self, texts: list[str]) -> Workload:
        answers = [(label["id"], self.encode(label["answer"])) for label in self._policy["labels"]]
        return Workload(
            prompt=self.start,
            label_names=[name for name, _ in answers],
            labels=[ids[0] for _, ids in answers],
            rows=[self.encode(text) + self.tail for text in texts],
        )


def texts(prompt: Prompt) -> list[str]:
    """One text for each sample post, of exactly LENGTH tokens with the tail."""
    samples = [json.loads(line)["text"].translate(TAG_SIGNS) for line in SAMPLES.read_text().splitlines()]
    return [_of_length(prompt, samples, index) for index in range(len(samples))]


def _of_length(prompt: Prompt, samples: list[str], first: int) -> str:
    """The post, followed by those after it as far as they are needed.

    Cutting between tokens may cut a character in two, or leave an end that is tokenised in another way; a word
    less at the beginning then moves the cut.
    """
    room = LENGTH - len(prompt.tail)
    following = " ".join((samples + samples)[first : first + len(samples)])
    words = following[: 40 * room].split()
    for skipped in range(len(words)):
        text = prompt.decode(prompt.encode(" ".join(words[skipped:]))[:room]).strip()
        if len(prompt.encode(text)) == room:
            return text
    raise ValueError(f"{SAMPLES}: no {room} tokens can be made from line {first + 1} on")


def write_posts(path: Path, some: list[str]) -> None:
    """post.v1 lines, as the worker reads them."""
    lines = (json.dumps({"id": f"bench-{index:03}", "text": text}) for index, text in enumerate(some, 1))
    path.write_text("\n".join(lines) + "\n")


def read_dump(path: Path) -> Workload:
    """What `moderato bench --dump-rows` wrote."""
    dump = json.loads(path.read_text())
    return Workload(
        prompt=dump["prompt"],
        label_names=[label["id"] for label in dump["labels"]],
        labels=[label["token"] for label in dump["labels"]],
        rows=dump["rows"],
    )
