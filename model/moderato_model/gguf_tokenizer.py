"""The tokenizer that a GGUF file carries, as Hugging Face's two files."""

from .byte_level import byte_level_tokenizer
from .checkpoint import TokenizerFiles
from .chat import with_llama2_template
from .errors import ExportError
from .sentencepiece import Piece, PieceType, Vocabulary, sentencepiece_tokenizer

ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
CONTROL = 3


def tokenizer_files(metadata) -> TokenizerFiles:
    """`metadata` is gguf_file.Metadata."""
    kind = metadata.need("tokenizer.ggml.model")
    tokens = metadata.need("tokenizer.ggml.tokens")
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    config = _tokenizer_config(metadata, tokens)
    bos = config.get("bos_token")
    if kind == "gpt2":
        special = [token for token, token_type in zip(tokens, types, strict=True) if token_type == CONTROL]
        text = byte_level_tokenizer(
            tokens,
            metadata.need("tokenizer.ggml.merges"),
            special,
            words=metadata.get("tokenizer.ggml.pre", "gpt-2"),
            prepended=bos if metadata.get("tokenizer.ggml.add_bos_token", False) else None,
        )
        return TokenizerFiles(text, config)
    if kind == "llama":
        scores = metadata.need("tokenizer.ggml.scores")
        # GGUF kept SentencePiece's numbers for the piece types.
        pieces = [Piece(*piece) for piece in zip(tokens, scores, map(PieceType, types), strict=True)]
        vocabulary = Vocabulary(pieces, add_dummy_prefix=metadata.get("tokenizer.ggml.add_space_prefix", True))
        return TokenizerFiles(sentencepiece_tokenizer(vocabulary), with_llama2_template(config, tokens))
    raise ExportError(f"{metadata.path}: tokenizer.ggml.model {kind!r} is not supported; gpt2 and llama are")


def _tokenizer_config(metadata, tokens: list[str]) -> dict:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for gguf_role, key in ROLES.items():
        index = metadata.get(f"tokenizer.ggml.{gguf_role}_token_id")
        if index is not None:
            config[key] = tokens[index]
    config["model_max_length"] = metadata.need("llama.context_length")
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        config["chat_template"] = template
    return config
