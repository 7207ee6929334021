"""`tokenizer.json` for byte-level BPE vocabularies (GPT-2's kind, as in SmolLM2 and Llama 3)."""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from .errors import ExportError

# Llama 3's word pattern: up to three digits together, contractions apart, spaces go with the next word.
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level_tokenizer(
    tokens: Sequence[str],
    merges: Sequence[str],
    special: Sequence[str],
    words: str = "smollm",
    prepended: str | None = None,
) -> str:
    """Tokenizer JSON. `words` is llama.cpp's name for how text is cut into words before the merges;
    `prepended` a special token put before every text."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    model = models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=words == "llama-bpe")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _words(words)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    if prepended is not None:
        tokenizer.post_processor = prepend(prepended, vocabulary[prepended])
    return tokenizer.to_str(pretty=True)


def prepend(token: str, index: int) -> processors.TemplateProcessing:
    """A post-processor that puts one special token before every text."""
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, index)]
    )


def _words(name: str):
    if name == "smollm":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if name == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "llama-bpe":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    raise ExportError(
        f"tokenizer.ggml.pre is {name!r}; known are smollm, gpt-2 and llama-bpe. "
        "Export from the Hugging Face folder, which brings its tokenizer.json"
    )
