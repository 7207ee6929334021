"""The tests' model: a Llama of two layers with made-up weights, the same from the same seed.

It knows nothing, but behaves like a model that does: any of the four labels can win, scores differ from
post to post, and its tokenizer and chat prompt have SmolLM2's shape.
"""

import hashlib
import json

import numpy as np

from .byte_level import byte_level_tokenizer
from .checkpoint import EMBEDDING, HEAD, Checkpoint, Source, TokenizerFiles, expected_tensors
from .shape import LlamaShape

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LABELS = ("false", "unknown", "opinion", "true")
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
    "which one you were all her she there would their we him been has when who will no more if out so up said what "
    "its about than into them can only other time new some could these two may first then do any like my now over "
    "such our man me even most made after also did many years people post world health study water moon news "
    "vaccine doctor government election evidence report claim answer judge misleading"
).split()
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_checkpoint(seed: int) -> Checkpoint:
    tokens, merges = vocabulary()
    config = _config(len(tokens))
    shape = LlamaShape.from_config(config, "tiny")
    label_ids = [tokens.index("Ġ" + label) for label in LABELS]
    tensors = _weights(shape, seed, label_ids)
    tokenizer = TokenizerFiles(byte_level_tokenizer(tokens, merges, SPECIAL), _tokenizer_config(shape))
    return Checkpoint(
        config=config,
        source=Source("seed", f"tiny --seed {seed}", _digest(config, tokenizer, tensors)),
        make_tokenizer=lambda: tokenizer,
        tensor_names=frozenset(tensors),
        read=tensors.__getitem__,
        name="moderato-tiny",
        license="CC0-1.0",
    )


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges: the bytes, and for each word with its space every beginning of it.

    All merges grow a word from its space rightwards, so no two words compete for a merge and each word
    is one token for certain.
    """
    tokens = [*SPECIAL, *byte_characters()]
    merges = []
    known = set(tokens)
    for word in (*LABELS, *WORDS):
        for end in range(len(word)):
            left, whole = "Ġ" + word[:end], "Ġ" + word[: end + 1]
            if whole not in known:
                known.add(whole)
                tokens.append(whole)
                merges.append(f"{left} {word[end]}")
    return tokens, merges


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself where printable, else a letter past U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def _weights(shape: LlamaShape, seed: int, label_ids: list[int]) -> dict[str, np.ndarray]:
    """Float32 tensors; the legacy generator, because its stream is frozen for good."""
    random = np.random.RandomState(seed)
    dims = _dimensions(shape)
    tensors = {}
    for name in sorted(expected_tensors(shape)):
        size = next(size for part, size in dims.items() if part in name)
        if len(size) == 1:
            tensors[name] = (1 + 0.1 * random.standard_normal(size)).astype(np.float32)
        else:
            tensors[name] = (_gain(name) * random.standard_normal(size) / np.sqrt(size[1])).astype(np.float32)
    # Loud label rows in a quiet head: a noticeable part of the probability then falls on the labels.
    tensors[HEAD][label_ids] *= np.float32(LABEL_GAIN)
    return tensors


# The last token of a chat prompt never changes, so what tells posts apart must come through attention:
# a quiet embedding, and queries, keys and outputs strong enough to pick tokens out.
GAINS = {EMBEDDING: 0.3, "q_proj": 1.5, "k_proj": 1.5, "o_proj": 2.0, "v_proj": 2.0, HEAD: 0.3}
LABEL_GAIN = 10.0


def _gain(name: str) -> float:
    return next((gain for part, gain in GAINS.items() if part in name), 1.0)


def _dimensions(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "norm": (shape.hidden,),
        "embed_tokens": (shape.vocab, shape.hidden),
        "lm_head": (shape.vocab, shape.hidden),
        "q_proj": (queries, shape.hidden),
        "k_proj": (keys, shape.hidden),
        "v_proj": (keys, shape.hidden),
        "o_proj": (shape.hidden, queries),
        "gate_proj": (shape.ffn, shape.hidden),
        "up_proj": (shape.ffn, shape.hidden),
        "down_proj": (shape.hidden, shape.ffn),
    }


def _config(vocab: int) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }


def _tokenizer_config(shape: LlamaShape) -> dict:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "chat_template": CHATML,
    }


def _digest(config: dict, tokenizer: TokenizerFiles, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps([config, tokenizer.config, tokenizer.json], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()
