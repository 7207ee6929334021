"""Turns llama-tokenizer-js's packed vocabulary into the tokenizer.json that Hugging Face would write for Llama 2.

The package keeps the pieces as base64 text, one a line, and the merges as pairs of 16-bit piece ids in order of rank.
"""

import base64
import json
import re
import struct
import sys
from pathlib import Path

CONTROL = ("<unk>", "<s>", "</s>")


def packed(source: str, name: str) -> bytes:
    found = re.search(name + r'\s*=\s*"([^"]+)"', source)
    if found is None:
        raise SystemExit(f"{name} is not in the file: take llama-tokenizer.js of llama-tokenizer-js 1.2.2")
    return base64.b64decode(found.group(1))


def tokenizer(source: str) -> dict:
    pieces = packed(source, "llama_vocab_base64").decode("utf-8").split("\n")
    raw = packed(source, "llama_merges_binary")
    ids = struct.unpack(f"<{len(raw) // 2}H", raw)
    merges = [[pieces[left], pieces[right]] for left, right in zip(ids[::2], ids[1::2], strict=True)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": pieces.index(text), "content": text, **plain} for text in CONTROL],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: number for number, piece in enumerate(pieces)}, "merges": merges},
    }


def main(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = tokenizer(source.read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
