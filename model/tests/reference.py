"""Llama 2 in float64, from the equations of the papers; shares nothing with the exporter.

Touvron et al. 2023 (Llama, Llama 2): pre-normalisation with RMSNorm (Zhang & Sennrich 2019), rotary
position embedding (Su et al. 2021), SwiGLU (Shazeer 2020), grouped-query attention (Ainslie et al. 2023).
Weights come under Hugging Face's names, so rotary pairs are (j, j + D/2). One sequence at a time, one
head at a time: meant to be checked by eye, not to be fast.
"""

import numpy as np


class Llama:
    def __init__(self, config: dict, weights: dict[str, np.ndarray]):
        self.config = config
        self.weights = {name: np.asarray(tensor, np.float64) for name, tensor in weights.items()}
        self.head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])

    def logits(self, ids) -> np.ndarray:
        """Logits [tokens, vocabulary] of one whole sequence that starts at position 0."""
        embedding = self.weights["model.embed_tokens.weight"]
        x = embedding[np.asarray(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            x = x + self.attention(self.norm(x, f"model.layers.{layer}.input_layernorm.weight"), layer)
            x = x + self.swiglu(self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight"), layer)
        head = embedding if self.config["tie_word_embeddings"] else self.weights["lm_head.weight"]
        return self.norm(x, "model.norm.weight") @ head.T

    def norm(self, x, name):
        """x / sqrt(mean(x^2) + eps) * g"""
        mean_square = (x * x).mean(axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.config["rms_norm_eps"]) * self.weights[name]

    def swiglu(self, x, layer):
        """W_down (SiLU(W_gate x) * W_up x)"""
        names = (f"model.layers.{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
        gate, up, down = (self.weights[name] for name in names)
        z = x @ gate.T
        return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T

    def attention(self, x, layer):
        q, k, v, o = (self.weights[f"model.layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkvo")
        d, heads, kv_heads = self.head_dim, self.config["num_attention_heads"], self.config["num_key_value_heads"]
        tokens = len(x)
        future = np.triu(np.ones((tokens, tokens), bool), 1)
        outputs = []
        for head in range(heads):
            shared = head * kv_heads // heads
            rows, shared_rows = slice(head * d, (head + 1) * d), slice(shared * d, (shared + 1) * d)
            queries, keys = self.rotate(x @ q[rows].T), self.rotate(x @ k[shared_rows].T)
            scores = queries @ keys.T / np.sqrt(d)
            scores[future] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            outputs.append(weights / weights.sum(axis=-1, keepdims=True) @ (x @ v[shared_rows].T))
        return np.concatenate(outputs, axis=-1) @ o.T

    def rotate(self, x):
        """Each pair (x_j, x_{j+D/2}) is a complex number, turned by position * frequency_j."""
        half = self.head_dim // 2
        angles = np.arange(len(x))[:, None] * np.array([self.frequency(j) for j in range(half)])[None, :]
        turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def frequency(self, j):
        """theta^(-2j/D); Llama 3.1 stretches long wavelengths and blends in between."""
        frequency = self.config["rope_theta"] ** (-2 * j / self.head_dim)
        scaling = self.config.get("rope_scaling")
        if not scaling:
            return frequency
        if scaling["rope_type"] == "linear":
            return frequency / scaling["factor"]
        wavelength = 2 * np.pi / frequency
        original = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if wavelength < original / high:
            return frequency
        if wavelength > original / low:
            return frequency / scaling["factor"]
        smooth = (original / wavelength - low) / (high - low)
        return (1 - smooth) * frequency / scaling["factor"] + smooth * frequency
