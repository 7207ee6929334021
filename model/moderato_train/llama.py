"""A Llama model in torch, for training: frozen weights, LoRA beside them, and one prompt for all rows of a batch.

The prompt stands once before the rows, with its gradient: its keys and values are shared as in the worker, not repeated.
Everything is float32: CPUs without AMX multiply bfloat16 no faster.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from moderato_model.checkpoint import EMBEDDING, FINAL_NORM, HEAD, Checkpoint, layer_tensor

PARTS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@dataclass(frozen=True)
class Lora:
    """Size of the adapter. Layers before `first_layer` stay as they are, which also spares their backward pass."""

    rank: int
    alpha: int
    first_layer: int
    dropout: float


class Llama:
    """Weights by Hugging Face name; `trainable` are the adapter's matrices, by PEFT's names."""

    def __init__(self, checkpoint: Checkpoint, lora: Lora, seed: int, compiled: bool):
        self.shape = checkpoint.shape
        self.lora = lora
        self.weights = {name: _tensor(checkpoint, name) for name in sorted(checkpoint.tensor_names)}
        self.head = self.weights[EMBEDDING if self.shape.tied else HEAD]
        cos, sin = self.shape.rotary_cache()
        self.cos, self.sin = (torch.from_numpy(half).float() for half in (cos, sin))
        self.trainable = self._adapter(torch.Generator().manual_seed(seed))
        self.training = True
        self._norm, self._add_norm, self._rotate, self._swiglu, self._softmax = (
            torch.compile(function, dynamic=True) if compiled else function
            for function in (_norm, _add_norm, _rotate, _swiglu, _softmax)
        )

    def to(self, device: str) -> "Llama":
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}
        self.trainable = {name: w.detach().to(device).requires_grad_() for name, w in self.trainable.items()}
        self.head, self.cos, self.sin = (tensor.to(device) for tensor in (self.head, self.cos, self.sin))
        return self

    def states(self, prompt: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Normed last states [wanted] of `rows` [batch, seq], padded on the right, after `prompt` [tokens].

        `wanted` are places in the rows laid end to end.
        """
        batch, seq = rows.shape
        start = len(prompt)
        device = rows.device
        x = F.embedding(torch.cat([prompt, rows.reshape(-1)]), self.weights[EMBEDDING])
        places = torch.cat([torch.arange(start), torch.arange(start, start + seq).repeat(batch)]).to(device)
        turns = self.cos[places][:, None], self.sin[places][:, None]
        masks = _causal(start, device), _causal(seq, device)
        last = self.shape.layers - 1
        h = self._norm(x, self.weights[layer_tensor(0, "input_layernorm")], self.shape.norm_epsilon)
        for layer in range(self.shape.layers):
            attended = self._attend(h, layer, turns, masks, batch)
            if layer == last:
                attended, x = attended[start + wanted], x[start + wanted]
            x, h = self._plus(x, self._linear(attended, layer, ("self_attn.o_proj",))[0], layer, "post_attention_layernorm")
            gate, up = self._linear(h, layer, ("mlp.gate_proj", "mlp.up_proj"))
            down = self._linear(self._swiglu(gate, up), layer, ("mlp.down_proj",))[0]
            x, h = self._plus(x, down, layer + 1, "input_layernorm")
        return h

    def logits(self, states: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Of the tokens `ids`, or of the whole vocabulary."""
        return F.linear(states, self.head if ids is None else self.head[ids])

    def _plus(self, x, product, layer: int, part: str):
        name = FINAL_NORM if layer == self.shape.layers else layer_tensor(layer, part)
        return self._add_norm(x, product, self.weights[name], self.shape.norm_epsilon)

    def _attend(self, h, layer: int, turns, masks, batch: int) -> torch.Tensor:
        """Rows attend to the prompt and to themselves; the prompt to itself."""
        kv, group, dim = self.shape.kv_heads, self.shape.group, self.shape.head_dim
        q, k, v = self._linear(h, layer, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
        q = self._rotate(q.view(-1, kv * group, dim), *turns) * (1 / math.sqrt(dim))
        k, v = self._rotate(k.view(-1, kv, dim), *turns), v.view(-1, kv, dim)
        start = masks[0].shape[0]
        seq = masks[1].shape[0]
        # [kv, tokens, dim] of the prompt; queries of one kv head side by side, so that each product is one for all of them.
        prompt_k, prompt_v = k[:start].transpose(0, 1), v[:start].transpose(0, 1)
        own = torch.bmm(_grouped(q[:start], 1, kv, group), prompt_k.transpose(1, 2)).view(kv, group, start, start)
        own = self._softmax(own, masks[0]).reshape(kv, group * start, start)
        of_prompt = _ungrouped(torch.bmm(own, prompt_v), 1, kv, group)
        q = _grouped(q[start:], batch, kv, group)
        k, v = (t[start:].view(batch, seq, kv, dim).transpose(1, 2).reshape(batch * kv, seq, dim) for t in (k, v))
        far = torch.bmm(_by_head(q, batch, kv), prompt_k.transpose(1, 2))
        far = far.view(kv, batch, group, seq, start).transpose(0, 1).reshape(batch * kv, group, seq, start)
        near = torch.bmm(q, k.transpose(1, 2)).view(batch * kv, group, seq, seq)
        weights = self._softmax(torch.cat([far, near], -1), F.pad(masks[1], (start, 0)))
        far, near = weights.reshape(batch * kv, group * seq, start + seq).split([start, seq], -1)
        far = torch.bmm(_by_head(far, batch, kv), prompt_v)
        far = far.view(kv, batch, group * seq, dim).transpose(0, 1).reshape(batch * kv, group * seq, dim)
        return torch.cat([of_prompt, _ungrouped(torch.baddbmm(far, near, v), batch, kv, group)])

    def _linear(self, x, layer: int, parts: tuple[str, ...]) -> list[torch.Tensor]:
        plain = [F.linear(x, self.weights[layer_tensor(layer, part)]) for part in parts]
        if layer < self.lora.first_layer:
            return plain
        names = [peft_name(layer, part) for part in parts]
        low = F.linear(x, torch.cat([self.trainable[f"{name}.lora_A.weight"] for name in names]))
        low = F.dropout(low * (self.lora.alpha / self.lora.rank), self.lora.dropout, self.training)
        return [
            torch.addmm(y, t, self.trainable[f"{name}.lora_B.weight"].t())
            for y, t, name in zip(plain, low.split(self.lora.rank, -1), names)
        ]

    def _adapter(self, random: torch.Generator) -> dict[str, torch.Tensor]:
        """A at random, B zero: an adapter that changes nothing yet."""
        adapter = {}
        for layer in range(self.lora.first_layer, self.shape.layers):
            for part in PARTS:
                out, width = self.weights[layer_tensor(layer, part)].shape
                a = (torch.rand(self.lora.rank, width, generator=random) * 2 - 1) / math.sqrt(width)
                adapter[f"{peft_name(layer, part)}.lora_A.weight"] = a.requires_grad_()
                adapter[f"{peft_name(layer, part)}.lora_B.weight"] = torch.zeros(out, self.lora.rank, requires_grad=True)
        return adapter


def peft_name(layer: int, part: str) -> str:
    """The name that PEFT gives to an adapted layer."""
    return f"base_model.model.model.layers.{layer}.{part}"


def _tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    # A copy: tensors of a GGUF file are read-only views of it.
    return torch.tensor(checkpoint.read(name), dtype=torch.float32)


def _causal(size: int, device) -> torch.Tensor:
    return torch.full((size, size), -1e9, device=device).triu(1)


def _grouped(q: torch.Tensor, batch: int, kv: int, group: int) -> torch.Tensor:
    """[tokens, heads, dim] to [batch * kv, group * seq, dim]."""
    seq, dim = q.shape[0] // batch, q.shape[-1]
    return q.view(batch, seq, kv, group, dim).permute(0, 2, 3, 1, 4).reshape(batch * kv, group * seq, dim)


def _ungrouped(y: torch.Tensor, batch: int, kv: int, group: int) -> torch.Tensor:
    seq, dim = y.shape[1] // group, y.shape[-1]
    return y.view(batch, kv, group, seq, dim).permute(0, 3, 1, 2, 4).reshape(batch * seq, kv * group * dim)


def _by_head(x: torch.Tensor, batch: int, kv: int) -> torch.Tensor:
    """[batch * kv, n, width] to [kv, batch * n, width]."""
    return x.view(batch, kv, *x.shape[1:]).transpose(0, 1).reshape(kv, -1, x.shape[-1])


def _norm(x, weight, epsilon: float):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def _add_norm(x, product, weight, epsilon: float):
    total = x + product
    return total, _norm(total, weight, epsilon)


def _rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _swiglu(gate, up):
    return F.silu(gate) * up


def _softmax(scores, mask):
    return torch.softmax(scores + mask, -1)
