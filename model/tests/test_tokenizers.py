"""Tokenizers made at export cut text as the originals do."""

import json
import struct

import pytest
from tokenizers import Tokenizer

from models import make_config, make_weights, write_gguf, write_hugging_face
from moderato_model.byte_level import byte_level_tokenizer
from moderato_model.chat import LLAMA2_TEMPLATE, is_llama2_vocabulary, with_llama2_template
from moderato_model.errors import ExportError
from moderato_model.export import Options, export
from moderato_model.gguf_file import open_gguf
from moderato_model.huggingface import open_folder
from moderato_model.tiny import LABELS, SPECIAL, byte_characters

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
WORDS = "▁▁ ▁t he ▁the in ing ▁a an and ▁and th ▁th lo ll hel hello ▁hello".split()
SAMPLES = [
    "hello and the thing",
    "the  two   spaces ",
    " leading",
    "",
    "hellothe",
    "naïve 🤷 日本語",
    "line\nbreak\ttab",
    "thethethe lllolo",
]


def pieces() -> list[tuple[str, float, int]]:
    """A small Llama-like vocabulary: controls, bytes, merged pieces by rank, single letters last."""
    letters = sorted(set("".join(WORDS)) | set("abcdefghijklmnop"))
    return [
        ("<unk>", 0.0, UNKNOWN),
        ("<s>", 0.0, CONTROL),
        ("</s>", 0.0, CONTROL),
        *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
        # Not in the order of their scores: the score decides, not the id.
        *((word, -float(WORDS.index(word)), NORMAL) for word in sorted(WORDS)),
        *((letter, -1000.0 - rank, NORMAL) for rank, letter in enumerate(letters)),
    ]


def sentencepiece_ids(text: str) -> list[int]:
    """SentencePiece's own BPE: again and again join the neighbours whose piece scores best, leftmost first."""
    ids = {piece: index for index, (piece, _, _) in enumerate(pieces())}
    scores = {piece: score for piece, score, kind in pieces() if kind == NORMAL}
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        joined = [(scores[a + b], -at) for at, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in scores]
        if not joined:
            break
        at = -max(joined)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    encoded = []
    for symbol in symbols:
        fallback = [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        encoded += [ids[symbol]] if symbol in scores else fallback
    return encoded


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head += bytes([value & 127 | 128])
        value >>= 7
    return head + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def sentencepiece_model(model_type: int = 2, charsmap: bytes = b"", remove_spaces: int = 0) -> bytes:
    """ModelProto by hand: pieces (1), trainer_spec (2), normalizer_spec (3)."""
    body = b""
    for text, score, kind in pieces():
        piece = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        body += message(1, piece if kind == NORMAL else piece + number(3, kind))
    body += message(2, number(3, model_type) + number(35, 1))
    normalizer = message(1, b"nmt_nfkc" if charsmap else b"identity")
    normalizer += message(2, charsmap) + number(3, 1) + number(4, remove_spaces) + number(5, 1)
    return body + message(3, normalizer)


def folder_with_tokenizer_model(path, content: bytes):
    config = make_config(vocab_size=len(pieces()))
    folder = write_hugging_face(path, config, make_weights(config))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.model").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp("sentencepiece")
    folder = folder_with_tokenizer_model(root / "source", sentencepiece_model())
    export(open_folder(folder), root / "out", Options())
    return root / "out"


@pytest.mark.parametrize("text", SAMPLES)
def test_a_sentencepiece_only_folder_cuts_text_as_sentencepiece_does(converted, text):
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert tokenizer.encode(text, add_special_tokens=False).ids == sentencepiece_ids(text)


@pytest.mark.parametrize("text", SAMPLES)
def test_a_converted_tokenizer_gives_the_text_back(converted, text):
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_converted_tokenizer_has_hugging_faces_llama2_layout(converted):
    layout = json.loads((converted / "tokenizer.json").read_text())
    assert layout["normalizer"] == {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    assert layout["pre_tokenizer"] is None
    assert [step["type"] for step in layout["decoder"]["decoders"]] == ["Replace", "ByteFallback", "Fuse", "Strip"]
    assert (layout["model"]["byte_fallback"], layout["model"]["fuse_unk"], layout["model"]["unk_token"]) == (
        True, True, "<unk>"
    )  # fmt: skip
    special = {token["content"]: token["id"] for token in layout["added_tokens"] if token["special"]}
    assert special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert tokenizer.encode("the").ids[0] == 1
    config = json.loads((converted / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("<s>", "</s>", "<unk>")


def test_a_gguf_with_sentencepiece_pieces_gives_the_same_tokenizer(converted, tmp_path):
    config = make_config(vocab_size=len(pieces()))
    path = write_gguf(tmp_path / "model.gguf", config, make_weights(config), sentencepiece=pieces())
    assert open_gguf(path).make_tokenizer().json == (converted / "tokenizer.json").read_text()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (sentencepiece_model(model_type=1), "model_type 1"),
        (sentencepiece_model(charsmap=b"\1\2"), "nmt_nfkc"),
        (sentencepiece_model(remove_spaces=1), "remove_extra_whitespaces"),
        (sentencepiece_model()[:100], "not a SentencePiece model"),
        (b"", "without pieces"),
        (b"\x0b\x0b", "not a SentencePiece model"),
    ],
    ids=["unigram", "normaliser", "spaces", "cut off", "empty", "garbage"],
)
def test_a_sentencepiece_model_that_would_convert_wrongly_is_refused(tmp_path, content, named):
    folder = folder_with_tokenizer_model(tmp_path / "source", content)
    with pytest.raises(ExportError, match=named):
        export(open_folder(folder), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_a_folder_without_any_tokenizer_is_refused(tmp_path):
    folder = folder_with_tokenizer_model(tmp_path / "source", b"")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ExportError, match="neither tokenizer.json nor tokenizer.model"):
        export(open_folder(folder), tmp_path / "out", Options())


def llama2_like() -> list[str]:
    head = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return [*head, *(f"piece{index}" for index in range(32000 - len(head) - 1)), "梦"]


def test_llama2s_template_is_added_only_for_its_vocabulary_and_only_where_none_is():
    assert with_llama2_template({}, llama2_like()) == {"chat_template": LLAMA2_TEMPLATE}
    assert with_llama2_template({"chat_template": "own"}, llama2_like()) == {"chat_template": "own"}
    assert not is_llama2_vocabulary([*llama2_like()[:-1], "other"])
    assert with_llama2_template({}, ["a", "b"]) == {}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": {"chat_template": "plain"}}, "plain"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "named"}]}}, "named"),
        ({"tokenizer_config.json": {}, "chat_template.jinja": "apart"}, "apart"),
    ],
    ids=["plain", "named", "its own file"],
)
def test_the_chat_template_is_found_wherever_transformers_puts_it(tmp_path, files, expected):
    config = make_config()
    folder = write_hugging_face(tmp_path / "source", config, make_weights(config))
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    tokenizer = open_folder(folder).make_tokenizer()
    assert tokenizer.config["chat_template"] == expected


def test_special_tokens_become_plain_strings(tmp_path):
    config = make_config()
    folder = write_hugging_face(tmp_path / "source", config, make_weights(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    tokenizer = open_folder(folder).make_tokenizer()
    assert (tokenizer.config["bos_token"], tokenizer.config["eos_token"]) == ("<s>", "</s>")


def test_each_label_of_the_tiny_model_is_one_token(tiny):
    tokenizer = Tokenizer.from_str(tiny.make_tokenizer().json)
    for label in LABELS:
        encoded = tokenizer.encode(" " + label)
        assert encoded.tokens == ["Ġ" + label]
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2]


@pytest.mark.parametrize("text", ["What is 2024?\n\n  don't", "naïve 🤷 日本語", "<|im_start|>x<|im_end|>"])
def test_the_tiny_tokenizer_gives_the_text_back(tiny, text):
    tokenizer = Tokenizer.from_str(tiny.make_tokenizer().json)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_smollm_cuts_digits_apart_and_llama3_by_threes():
    tokens = [*byte_characters(), "12", "123"]
    merges = ["1 2", "12 3"]
    smollm = Tokenizer.from_str(byte_level_tokenizer(tokens, merges, [], words="smollm"))
    llama3 = Tokenizer.from_str(byte_level_tokenizer(tokens, merges, [], words="llama-bpe"))
    assert smollm.encode("a1234").tokens == ["a", "1", "2", "3", "4"]
    assert llama3.encode("a1234").tokens == ["a", "123", "4"]


def test_an_unknown_way_to_cut_words_is_refused_by_name():
    with pytest.raises(ExportError, match="deepseek-llm"):
        byte_level_tokenizer(byte_characters(), [], [], words="deepseek-llm")
