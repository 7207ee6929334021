"""SentencePiece BPE vocabularies: reading `tokenizer.model`, and writing them as `tokenizer.json`.

SentencePiece keeps pieces with scores and merges whichever neighbours form the best-scored piece;
`tokenizer.json` wants the merges listed, so they are recovered: each way to cut a piece in two known
pieces is a merge, ranked by the score of the whole.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from .byte_level import prepend
from .errors import ExportError

SPACE = "▁"


class PieceType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class Vocabulary:
    """Pieces in the order of their ids, and what happens to text before them."""

    pieces: list[Piece]
    add_dummy_prefix: bool = True


def read_tokenizer_model(path: Path) -> Vocabulary:
    """Parses SentencePiece's ModelProto; refuses what the conversion would get wrong."""
    try:
        model = list(_fields(path.read_bytes()))
        pieces = [_piece(value) for number, value in model if number == 1]
        trainer = dict(field for number, value in model if number == 2 for field in _fields(value))
        normalizer = dict(field for number, value in model if number == 3 for field in _fields(value))
    except (ValueError, IndexError, TypeError) as error:
        raise ExportError(f"{path}: not a SentencePiece model: {error}") from error
    if not pieces:
        raise ExportError(f"{path}: a SentencePiece model without pieces")
    if trainer.get(3, 1) != 2:
        raise ExportError(f"{path}: SentencePiece model_type {trainer.get(3, 1)} is not supported; BPE (2) is")
    # A compiled character map rewrites text (NFKC and the like); Llama's is the identity, with none.
    if normalizer.get(2):
        name = normalizer.get(1, b"unnamed").decode(errors="replace")
        raise ExportError(f"{path}: normaliser {name!r} is not supported; bring the model's tokenizer.json")
    if normalizer.get(4, 1):
        raise ExportError(f"{path}: remove_extra_whitespaces is not supported; bring the model's tokenizer.json")
    return Vocabulary(pieces, add_dummy_prefix=bool(normalizer.get(3, 1)))


def sentencepiece_tokenizer(vocabulary: Vocabulary) -> str:
    """Tokenizer JSON in the layout Hugging Face uses for Llama 2."""
    pieces = vocabulary.pieces
    index = {piece.text: number for number, piece in enumerate(pieces)}
    unknown = next((piece.text for piece in pieces if piece.type == PieceType.UNKNOWN), None)
    has_bytes = any(piece.type == PieceType.BYTE for piece in pieces)
    model = models.BPE(
        vocab=index, merges=recover_merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes
    )
    tokenizer = Tokenizer(model)
    spaces = [normalizers.Replace(" ", SPACE)]
    if vocabulary.add_dummy_prefix:
        spaces.insert(0, normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    special = (PieceType.UNKNOWN, PieceType.CONTROL)
    tokenizer.add_special_tokens([AddedToken(p.text, normalized=False) for p in pieces if p.type in special])
    tokenizer.add_tokens([AddedToken(p.text, normalized=False) for p in pieces if p.type == PieceType.USER_DEFINED])
    if "<s>" in index:
        tokenizer.post_processor = prepend("<s>", index["<s>"])
    return tokenizer.to_str(pretty=True)


def recover_merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Every pair of pieces that joins into a piece, best score first.

    Pairs that make the same piece keep a fixed order among themselves, by the ids of their parts.
    """
    index = {piece.text: number for number, piece in enumerate(pieces) if piece.type == PieceType.NORMAL}
    ranked = []
    for whole, number in index.items():
        for cut in range(1, len(whole)):
            left, right = index.get(whole[:cut]), index.get(whole[cut:])
            if left is not None and right is not None:
                ranked.append((-pieces[number].score, number, left, right))
    return [(pieces[left].text, pieces[right].text) for _, _, left, right in sorted(ranked)]


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    score = struct.unpack("<f", fields.get(2, b"\0\0\0\0"))[0]
    return Piece(fields[1].decode(), score, PieceType(fields.get(3, PieceType.NORMAL)))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protobuf message: whole numbers for varints, bytes for everything else."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(message, position)
        else:
            if wire_type == 2:
                length, position = _varint(message, position)
            elif wire_type in (1, 5):
                length = 8 if wire_type == 1 else 4
            else:
                raise ValueError(f"wire type {wire_type} at byte {position}")
            if position + length > len(message):
                raise ValueError(f"field {number} is cut off at byte {position}")
            value, position = message[position : position + length], position + length
        yield number, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
