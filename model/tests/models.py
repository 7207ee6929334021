"""Small checkpoints made from a seed, in each form that the exporter reads."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def make_config(**changes) -> dict:
    """Three layers, grouped heads, untied head; head_dim differs from hidden / heads on purpose."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": 97,
    } | changes


def make_weights(config: dict, seed: int = 3) -> dict[str, np.ndarray]:
    """Float32 weights whose attention and norms matter: gains above one, norms away from one."""
    random = np.random.RandomState(seed)
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries, keys = (config[key] * config["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (1.5 * random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    def norm() -> np.ndarray:
        return random.uniform(0.5, 1.5, hidden).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocab, hidden), "model.norm.weight": norm()}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        weights[prefix + "input_layernorm.weight"] = norm()
        weights[prefix + "post_attention_layernorm.weight"] = norm()
        shapes = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }
        weights |= {f"{prefix}{part}.weight": matrix(*shape) for part, shape in shapes.items()}
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(vocab, hidden)
    return weights


def make_vocabulary(size: int) -> list[str]:
    return ["<s>", "</s>", "a", "b", "ab", *(chr(0x4E00 + index) for index in range(size - 5))]


def write_hugging_face(folder: Path, config: dict, weights: dict, shards: int = 1, dtype=np.float32) -> Path:
    """A checkpoint folder with its own tokenizer; with several shards there is an index, as transformers writes it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(weights)
    places = {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name].astype(dtype) for name in names[shard::shards]}
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    vocabulary = {token: index for index, token in enumerate(make_vocabulary(config["vocab_size"]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {"bos_token": {"content": "<s>", "special": True}, "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


def bfloat16(weights: dict) -> dict:
    """The weights as a bfloat16 file will give them back."""
    return {name: tensor.astype(ml_dtypes.bfloat16).astype(np.float32) for name, tensor in weights.items()}


GGUF_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    path: Path, config: dict, weights: dict, architecture: str = "llama", sentencepiece: list | None = None
) -> Path:
    """The same checkpoint as llama.cpp's converter would write it, in float32.

    `sentencepiece` gives (piece, score, type) for each token; otherwise the vocabulary is byte-level.
    """
    writer = GGUFWriter(path, architecture)
    writer.add_name("test model")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if sentencepiece is None:
        tokens = make_vocabulary(config["vocab_size"])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(tokens) - 2))
        writer.add_token_merges(["a b"])
    else:
        tokens, scores, types = zip(*sentencepiece, strict=True)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
    writer.add_bos_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in weights.items():
        writer.add_tensor(_gguf_name(name), _permuted(name, tensor, config), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in whole:
        return whole[name] + ".weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_PARTS[rest.removesuffix('.weight')]}.weight"


def _permuted(name: str, tensor: np.ndarray, config: dict) -> np.ndarray:
    """llama.cpp's order of query and key rows: row 2j is the old j, row 2j+1 the old j + D/2."""
    counts = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    count = next((n for part, n in counts.items() if part in name), None)
    if count is None:
        return tensor
    d = config["head_dim"]
    order = [head * d + j + half * (d // 2) for head in range(count) for j in range(d // 2) for half in (0, 1)]
    return np.ascontiguousarray(tensor[order])
