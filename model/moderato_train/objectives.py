"""What is learned: a label at the last position, or the words of a note."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .llama import Llama


@dataclass(frozen=True)
class Rows:
    """Ids after the prompt, and what is wanted of each row: a label's number, or the last so many of its ids."""

    ids: list[list[int]]
    wanted: list[int]


# Weight of the probability that leaves the labels for other tokens: enough that `outside_labels` of a verdict keeps its meaning.
OUTSIDE = 0.1


class Labels:
    """Cross-entropy over the labels' tokens, with some of their prior taken from the model's shoulders."""

    def __init__(self, tokens: list[int], prior: np.ndarray, balance: float, smoothing: float, device: str):
        self.tokens = torch.tensor(tokens, device=device)
        self.shift = torch.tensor(np.log(prior) * balance, dtype=torch.float32, device=device)
        self.smoothing, self.device = smoothing, device

    def loss(self, model: Llama, rows: Rows, picked: list[int], prompt: torch.Tensor) -> torch.Tensor:
        wanted = torch.tensor([rows.wanted[n] for n in picked], device=self.device)
        everything = model.logits(self._states(model, rows, picked, prompt))
        labels = everything[:, self.tokens]
        outside = (everything.logsumexp(-1) - labels.logsumexp(-1)).mean()
        return F.cross_entropy(labels + self.shift, wanted, label_smoothing=self.smoothing) + OUTSIDE * outside

    @torch.no_grad()
    def check(self, model: Llama, rows: Rows, prompt: torch.Tensor) -> dict:
        """Accuracy, macro-F1, AUC of the first label, and loss."""
        order = _by_length(rows)
        states = (self._states(model, rows, part, prompt) for part in _parts(order, 64))
        z = torch.cat([model.logits(some, self.tokens) for some in states])
        truth = torch.tensor([rows.wanted[n] for n in order], device=self.device)
        loss = F.cross_entropy(z + self.shift, truth).item()
        return quality(z.cpu().numpy(), truth.cpu().numpy()) | {"loss": round(loss, 4)}

    def _states(self, model: Llama, rows: Rows, picked: list[int], prompt: torch.Tensor) -> torch.Tensor:
        ids, width = padded([rows.ids[n] for n in picked], self.device)
        last = [at * width + len(rows.ids[n]) - 1 for at, n in enumerate(picked)]
        return model.states(prompt, ids, torch.tensor(last, device=self.device))


class Notes:
    """Cross-entropy over the words of the note, which end each row; what stands before them is not learned."""

    def __init__(self, device: str):
        self.device = device

    def loss(self, model: Llama, rows: Rows, picked: list[int], prompt: torch.Tensor) -> torch.Tensor:
        ids, width = padded([rows.ids[n] for n in picked], self.device)
        before, words = [], []
        for at, n in enumerate(picked):
            row, count = rows.ids[n], rows.wanted[n]
            before += range(at * width + len(row) - count - 1, at * width + len(row) - 1)
            words += row[-count:]
        states = model.states(prompt, ids, torch.tensor(before, device=self.device))
        return F.cross_entropy(model.logits(states), torch.tensor(words, device=self.device))

    @torch.no_grad()
    def check(self, model: Llama, rows: Rows, prompt: torch.Tensor) -> dict:
        parts = _parts(_by_length(rows), 32)
        losses = [self.loss(model, rows, part, prompt).item() * sum(rows.wanted[n] for n in part) for part in parts]
        return {"loss_per_token": round(sum(losses) / sum(rows.wanted), 4)}


def quality(z: np.ndarray, truth: np.ndarray) -> dict:
    found = z.argmax(1)
    classes = range(z.shape[1])
    both = [((found == c) & (truth == c)).sum() * 2 / max(1, (found == c).sum() + (truth == c).sum()) for c in classes]
    score, hit = z[:, 0] - np.logaddexp.reduce(z[:, 1:], axis=1), truth == 0
    ranks = np.empty(len(score))
    ranks[score.argsort()] = np.arange(1, len(score) + 1)
    pairs = max(1, hit.sum() * (~hit).sum())
    auc = (ranks[hit].sum() - hit.sum() * (hit.sum() + 1) / 2) / pairs
    figures = {"accuracy": (found == truth).mean(), "macro_f1": np.mean(both), "auc": auc}
    return {name: round(float(value), 4) for name, value in figures.items()}


def padded(rows: list[list[int]], device: str) -> tuple[torch.Tensor, int]:
    """Rows side by side, padded on the right to a multiple of 8, and their width."""
    width = -(-max(map(len, rows)) // 8) * 8
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    return ids.to(device), width


def _by_length(rows: Rows) -> list[int]:
    return sorted(range(len(rows.ids)), key=lambda n: len(rows.ids[n]))


def _parts(order: list[int], size: int) -> list[list[int]]:
    return [order[at : at + size] for at in range(0, len(order), size)]
