"""Writes a Hugging Face checkpoint of a known shape with random weights: it judges nothing and costs what the real one
costs. One shard a layer, so that memory holds one layer and not the model.

    random_checkpoint.py SHAPE OUT [--tokenizer FOLDER]
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from moderato_model.chat import LLAMA2_TEMPLATE
from moderato_model.checkpoint import EMBEDDING, FINAL_NORM, HEAD, LAYER_PARTS, layer_tensor
from moderato_model.tiny import tiny_checkpoint
from safetensors.numpy import save_file

COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "torch_dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shape(hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, tied: bool) -> dict:
    return COMMON | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
    }


SHAPES = {
    "llama-2-7b": shape(4096, 32, 32, 32, 11008, 32000, tied=False),
    "smollm2-135m": shape(576, 30, 9, 3, 1536, 49152, tied=True),
    # To try the script itself.
    "small": shape(64, 2, 4, 2, 128, 32000, tied=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json; else that of the tests' tiny model")
    arguments = parser.parse_args()
    config = SHAPES[arguments.shape]
    arguments.out.mkdir(parents=True)
    write_weights(config, arguments.out)
    write_tokenizer(arguments.tokenizer, arguments.out)
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def write_weights(config: dict, out: Path) -> None:
    # The fastest of NumPy's generators: 7 billion numbers are drawn.
    random = np.random.Generator(np.random.SFC64(7))
    shards = [("embedding", {EMBEDDING: (config["vocab_size"], config["hidden_size"])})]
    for layer in range(config["num_hidden_layers"]):
        sizes = {layer_tensor(layer, part): size(config, part) for part in LAYER_PARTS}
        shards.append((f"layer-{layer:03}", sizes))
    last = {FINAL_NORM: (config["hidden_size"],)}
    if not config["tie_word_embeddings"]:
        last[HEAD] = (config["vocab_size"], config["hidden_size"])
    shards.append(("last", last))
    for name, sizes in shards:
        save_file({tensor: weights(random, size) for tensor, size in sizes.items()}, out / f"model-{name}.safetensors")


def size(config: dict, part: str) -> tuple[int, ...]:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    if "layernorm" in part:
        return (hidden,)
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }[part]


def weights(random: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Norms of one; matrices whose products neither vanish nor leave the range of 16 bits."""
    if len(size) == 1:
        return np.ones(size, np.float16)
    return (random.standard_normal(size, np.float32) * np.float32(0.02)).astype(np.float16)


def write_tokenizer(source: Path | None, out: Path) -> None:
    if source is None:
        files = tiny_checkpoint(7).make_tokenizer()
        (out / "tokenizer.json").write_text(files.json, encoding="utf-8")
        (out / "tokenizer_config.json").write_text(json.dumps(files.config), encoding="utf-8")
        return
    shutil.copy(source / "tokenizer.json", out / "tokenizer.json")
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    text = json.dumps({"chat_template": LLAMA2_TEMPLATE} | config)
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
