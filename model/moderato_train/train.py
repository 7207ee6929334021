"""The training loop: AdamW, batches of like lengths, the rate rising and then falling to the end."""

import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from . import adapter
from .llama import Llama
from .objectives import Labels, Notes, Rows


STATE = "state.pt"
# After so many steps a training that is ended can go on from here.
KEPT = 50


@dataclass(frozen=True)
class Schedule:
    # Rows of a batch, and tokens of it at most, padding counted: memory is bought by the token.
    batch: int
    tokens: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    seed: int


class Trainer:
    def __init__(self, model: Llama, objective: Labels | Notes, prompts: list[list[int]], schedule: Schedule, device: str):
        self.model, self.objective, self.schedule = model, objective, schedule
        self.prompts = [torch.tensor(prompt, device=device) for prompt in prompts]
        self.optimizer = torch.optim.AdamW(
            list(model.trainable.values()),
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0

    def run(self, epochs: list[Rows], val: Rows, out: Path, card: dict, log) -> None:
        plan = [(rows, batch) for number, rows in enumerate(epochs) for batch in _batches(rows, self.schedule, number)]
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
                log("val " + json.dumps(self._check(val)))
            if self.step % KEPT == 0:
                self._keep(out)
        figures = self._check(val)
        log("val " + json.dumps(figures))
        (out / STATE).unlink(missing_ok=True)
        done = {"schedule": asdict(self.schedule), "steps": self.step, "seconds": round(time.time() - start), "val": figures}
        adapter.save(self.model, out, card["base"], card | done)

    def resume(self, out: Path) -> None:
        """Goes on behind what was kept last."""
        state = torch.load(out / STATE)
        self.step = state["step"]
        for name, weight in state["weights"].items():
            self.model.trainable[name].data.copy_(weight)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])

    def _keep(self, out: Path) -> None:
        """All that the rest of the training depends on, whole or not at all."""
        weights = {name: weight.detach() for name, weight in self.model.trainable.items()}
        optimizer, chance = self.optimizer.state_dict(), torch.get_rng_state()
        partial = out / f"{STATE}.partial"
        torch.save({"step": self.step, "weights": weights, "optimizer": optimizer, "random": chance}, partial)
        partial.replace(out / STATE)

    def _learn(self, rows: Rows, picked: list[int], prompt: torch.Tensor, steps: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self._rate(self.step / steps)
        loss = self.objective.loss(self.model, rows, picked, prompt)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.trainable.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def _rate(self, done: float) -> float:
        """0 to 1: up during the warm-up, then straight down."""
        warm_up = self.schedule.warm_up
        return min(1.0, (done + 1e-3) / warm_up) * max(0.02, min(1.0, (1 - done) / (1 - warm_up)))

    def _check(self, val: Rows) -> dict:
        """Of each prompt, on rows that are not trained on."""
        self.model.training = False
        figures = {f"prompt_{n}": self.objective.check(self.model, val, prompt) for n, prompt in enumerate(self.prompts)}
        self.model.training = True
        return figures


def _batches(rows: Rows, schedule: Schedule, epoch: int) -> list[list[int]]:
    """Every row once; rows of like length together, for padding is work, and long ones in smaller batches."""
    draw = random.Random(schedule.seed * 1000 + epoch)
    order = list(range(len(rows.ids)))
    draw.shuffle(order)
    window = schedule.batch * 40
    batches = []
    for at in range(0, len(order), window):
        batches += _within(sorted(order[at : at + window], key=lambda n: len(rows.ids[n])), rows, schedule)
    draw.shuffle(batches)
    return batches


def _within(order: list[int], rows: Rows, schedule: Schedule) -> list[list[int]]:
    """Runs of `order`, shortest rows first, that keep to the batch's rows and tokens."""
    batches: list[list[int]] = [[]]
    for n in order:
        if len(batches[-1]) == schedule.batch or (len(batches[-1]) + 1) * len(rows.ids[n]) > schedule.tokens:
            batches.append([])
        batches[-1].append(n)
    return [batch for batch in batches if batch]
