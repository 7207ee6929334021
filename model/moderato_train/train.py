"""The training loop: logit-adjusted cross-entropy over the label tokens, AdamW, batches of like lengths."""

import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import adapter
from .llama import Llama
from .rows import Prompt


@dataclass(frozen=True)
class Schedule:
    # Rows of a batch, and tokens of it at most, padding counted: memory is bought by the token.
    batch: int
    tokens: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    smoothing: float
    # How much of the labels' prior the loss takes upon itself: 0 learns the data's shares, 1 learns balanced ones.
    balance: float
    seed: int


@dataclass(frozen=True)
class Rows:
    """Ids after the prompt, and labels."""

    ids: list[list[int]]
    labels: list[int]


class Trainer:
    def __init__(self, model: Llama, prompts: list[Prompt], schedule: Schedule, prior: np.ndarray, device: str):
        self.model, self.schedule, self.device = model, schedule, device
        self.prompts = [torch.tensor(prompt.prefix, device=device) for prompt in prompts]
        self.labels = torch.tensor(prompts[0].labels, device=device)
        self.shift = torch.tensor(np.log(prior) * schedule.balance, dtype=torch.float32, device=device)
        parameters = list(model.trainable.values())
        self.optimizer = torch.optim.AdamW(
            parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.step = 0

    def run(self, epochs: list[Rows], val: Rows, out: Path, card: dict, log) -> None:
        plan = [batch for number, rows in enumerate(epochs) for batch in _batches(rows, self.schedule, number)]
        draw = random.Random(self.schedule.seed)
        # The first prompt is the one that is shipped; the others teach that a policy's words may differ.
        prompts = draw.choices(self.prompts, [4] + [1] * (len(self.prompts) - 1), k=len(plan))
        start, tokens, losses = time.time(), 0, []
        checks = {len(plan) * part // 4 for part in range(1, 4)}
        for (rows, picked), prompt in list(zip(plan, prompts))[self.step :]:
            losses.append(self._learn(rows, picked, prompt, len(plan)))
            tokens += sum(len(rows.ids[n]) for n in picked)
            if self.step % 20 == 0:
                spent = time.time() - start
                log(f"step {self.step}/{len(plan)} loss {np.mean(losses[-20:]):.4f} {tokens / spent:.0f} tokens/s {spent:.0f} s")
            if self.step in checks:
                log("val " + json.dumps(self.check(val)))
                adapter.save(self.model, out, card["base"], card | {"steps": self.step, "of": len(plan)})
                torch.save({"step": self.step, "optimizer": self.optimizer.state_dict()}, out / "state.pt")
        figures = self.check(val)
        log("val " + json.dumps(figures))
        (out / "state.pt").unlink(missing_ok=True)
        card = card | {"schedule": asdict(self.schedule), "steps": self.step, "seconds": round(time.time() - start), "val": figures}
        adapter.save(self.model, out, card["base"], card)

    def resume(self, out: Path) -> None:
        adapter.load(self.model, out)
        state = torch.load(out / "state.pt")
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])

    def _learn(self, rows: Rows, picked: list[int], prompt: torch.Tensor, steps: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self._rate(self.step / steps)
        z = self._scores(rows, picked, prompt)
        labels = torch.tensor([rows.labels[n] for n in picked], device=self.device)
        loss = F.cross_entropy(z + self.shift, labels, label_smoothing=self.schedule.smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.trainable.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def _rate(self, done: float) -> float:
        return min(1.0, (done + 1e-3) / self.schedule.warm_up) * max(0.02, min(1.0, (1 - done) / (1 - self.schedule.warm_up)))

    def _scores(self, rows: Rows, picked: list[int], prompt: torch.Tensor) -> torch.Tensor:
        ids, last = padded([rows.ids[n] for n in picked], self.device)
        return self.model.logits(self.model.states(prompt, ids, last), self.labels)

    @torch.no_grad()
    def check(self, val: Rows) -> dict:
        """Accuracy, macro-F1 and loss of each prompt on rows that are not trained on."""
        self.model.training = False
        figures = {}
        order = sorted(range(len(val.ids)), key=lambda n: len(val.ids[n]))
        truth = np.array([val.labels[n] for n in order])
        for name, prompt in enumerate(self.prompts):
            parts = [self._scores(val, order[at : at + 64], prompt).cpu() for at in range(0, len(order), 64)]
            z = torch.cat(parts)
            loss = F.cross_entropy(z + self.shift.cpu(), torch.tensor(truth)).item()
            figures[f"prompt_{name}"] = quality(z.numpy(), truth) | {"loss": round(loss, 4)}
        self.model.training = True
        return figures


def quality(z: np.ndarray, truth: np.ndarray) -> dict:
    found = z.argmax(1)
    classes = range(z.shape[1])
    both = [((found == c) & (truth == c)).sum() * 2 / max(1, (found == c).sum() + (truth == c).sum()) for c in classes]
    score, hit = z[:, 0] - np.logaddexp.reduce(z[:, 1:], axis=1), truth == 0
    ranks = np.empty(len(score))
    ranks[score.argsort()] = np.arange(1, len(score) + 1)
    pairs = max(1, hit.sum() * (~hit).sum())
    auc = (ranks[hit].sum() - hit.sum() * (hit.sum() + 1) / 2) / pairs
    return {"accuracy": round(float((found == truth).mean()), 4), "macro_f1": round(float(np.mean(both)), 4), "auc": round(float(auc), 4)}


def padded(rows: list[list[int]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows side by side, padded on the right to a multiple of 8; and where each one's last token is."""
    width = -(-max(map(len, rows)) // 8) * 8
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row)
    last = torch.tensor([n * width + len(row) - 1 for n, row in enumerate(rows)])
    return ids.to(device), last.to(device)


def _batches(rows: Rows, schedule: Schedule, epoch: int) -> list[tuple[Rows, list[int]]]:
    """Every row once; rows of like length together, for padding is work, and long ones in smaller batches."""
    draw = random.Random(schedule.seed * 1000 + epoch)
    order = list(range(len(rows.ids)))
    draw.shuffle(order)
    window = schedule.batch * 40
    batches = []
    for at in range(0, len(order), window):
        batches += _within(sorted(order[at : at + window], key=lambda n: len(rows.ids[n])), rows, schedule)
    draw.shuffle(batches)
    return [(rows, batch) for batch in batches]


def _within(order: list[int], rows: Rows, schedule: Schedule) -> list[list[int]]:
    """Runs of `order`, shortest rows first, that keep to the batch's rows and tokens."""
    batches: list[list[int]] = [[]]
    for n in order:
        if len(batches[-1]) == schedule.batch or (len(batches[-1]) + 1) * len(rows.ids[n]) > schedule.tokens:
            batches.append([])
        batches[-1].append(n)
    return [batch for batch in batches if batch]
