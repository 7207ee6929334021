"""What the graphs need to know of a Llama model, checked against what they can express.

A config is refused as soon as it names something the graphs leave out: an ignored bias or an ignored
rotary scaling gives a model that runs and is quietly wrong.
"""

import math
from dataclasses import dataclass

import numpy as np

from .errors import ExportError

ARCHITECTURES = ("llama", "mistral")


@dataclass(frozen=True)
class RotaryScaling:
    """`linear` divides every frequency; `llama3` only the slow ones, with a smooth band between."""

    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 0

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        if self.kind == "default":
            return frequencies
        if self.kind == "linear":
            return frequencies / self.factor
        turns = self.original_context * frequencies / (2 * math.pi)
        band = self.high_frequency_factor - self.low_frequency_factor
        kept = np.clip((turns - self.low_frequency_factor) / band, 0.0, 1.0)
        return frequencies * (kept + (1.0 - kept) / self.factor)


@dataclass(frozen=True)
class LlamaShape:
    """Sizes and constants of one model, in Hugging Face's meaning of each."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RotaryScaling
    tied: bool

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    def rotary_cache(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines, float64 [context, head_dim / 2]."""
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim
        frequencies = self.rope_scaling.apply(self.rope_theta**-exponents)
        angles = np.outer(np.arange(self.context, dtype=np.float64), frequencies)
        return np.cos(angles), np.sin(angles)

    @staticmethod
    def from_config(config: dict, where: str) -> "LlamaShape":
        """Reads a Hugging Face config; `where` names it in errors."""
        _refuse_unsupported(config, where)
        heads = _positive(config, "num_attention_heads", where)
        hidden = _positive(config, "hidden_size", where)
        kv_heads = config.get("num_key_value_heads") or heads
        if heads % kv_heads:
            raise ExportError(f"{where}: {heads} attention heads cannot be shared among {kv_heads} key-value heads")
        theta, scaling = _rotary(config, where)
        shape = LlamaShape(
            layers=_positive(config, "num_hidden_layers", where),
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=config.get("head_dim") or hidden // heads,
            ffn=_positive(config, "intermediate_size", where),
            vocab=_positive(config, "vocab_size", where),
            context=_positive(config, "max_position_embeddings", where),
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            rope_theta=theta,
            rope_scaling=scaling,
            tied=bool(config.get("tie_word_embeddings", False)),
        )
        if shape.head_dim % 2:
            raise ExportError(f"{where}: head_dim is {shape.head_dim}; rotary embedding needs an even one")
        return shape


def _positive(config: dict, key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ExportError(f"{where}: {key} is {value!r}; a Llama config has a positive whole number there")
    return value


def _refuse_unsupported(config: dict, where: str) -> None:
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        raise ExportError(f"{where}: model_type is {architecture!r}; this exporter knows {', '.join(ARCHITECTURES)}")
    # Each key with the values that leave the plain Llama equations untouched.
    harmless = {
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "hidden_act": ("silu", "swish", None),
        "sliding_window": (None,),
        "quantization_config": (None,),
        "partial_rotary_factor": (1, None),
        "num_local_experts": (0, 1, None),
    }
    for key, accepted in harmless.items():
        if config.get(key) not in accepted:
            raise ExportError(
                f"{where}: {key} is {config[key]!r}, which the graphs cannot express; "
                f"use a checkpoint where it is {accepted[0]!r} or absent"
            )


def _rotary(config: dict, where: str) -> tuple[float, RotaryScaling]:
    """Both spellings: `rope_theta` + `rope_scaling`, and the later `rope_parameters` that holds the two."""
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(settings.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if settings.get("partial_rotary_factor") not in (None, 1):
        raise ExportError(f"{where}: partial_rotary_factor {settings['partial_rotary_factor']} is not supported")
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind == "default":
        return theta, RotaryScaling()
    try:
        if kind == "linear":
            return theta, RotaryScaling("linear", float(settings["factor"]))
        if kind == "llama3":
            return theta, RotaryScaling(
                "llama3",
                float(settings["factor"]),
                float(settings["low_freq_factor"]),
                float(settings["high_freq_factor"]),
                int(settings["original_max_position_embeddings"]),
            )
    except KeyError as missing:
        raise ExportError(f"{where}: rotary scaling {kind!r} lacks {missing}") from missing
    raise ExportError(f"{where}: rotary scaling {kind!r} is not supported; default, linear and llama3 are")
