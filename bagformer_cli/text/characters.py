"""Tables of characters: folded forms and classes for matching, actions for WordPiece.

    character   Ａ   é   5      ，      红      U+0301 (combining accent)  U+200B (zero-width space)
    folded      a   e   5      ,      红      U+0301                     U+200B
    class       LATIN   DIGIT  PUNCT  OTHER   MARK                       INVISIBLE

A table is a numpy array indexed by code point, so one indexing operation looks up all titles of a
batch. The blocks that titles use are computed from ``unicodedata``. All other code points have a
default that is right for ideographs and symbols.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000

OTHER, SPACE, LATIN, DIGIT, MARK, PUNCT, INVISIBLE = range(7)
"""Classes of a folded character. LATIN are the letters of every alphabet. MARK are characters that
belong to the one before them (accents, skin tones). INVISIBLE is what :func:`is_invisible` says."""

DROP, WHITE, ISOLATED, WORD, UNSURE = range(5)
"""Actions of BERT's tokenizer before WordPiece. Texts with an UNSURE character are left to the
``tokenizers`` library."""

_IGNORABLE = (
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors
    (0x2060, 0x206F),  # word joiner, bidirectional isolates
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFFA0, 0xFFA0),  # half-width Hangul filler
    (0xFFF0, 0xFFFB),  # annotation signs
    (0xE0000, 0xE0FFF),  # tags, further variation selectors
)
"""Code points of Unicode's property Default_Ignorable_Code_Point, besides the format controls."""

_HAN = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
)
"""BERT's ideograph blocks (0x2B920 is its own slip, kept because the ids depend on it); the one
at 0x2F800 is left to ``tokenizers``, whose normaliser knows it better."""

_WORKED_OUT = (
    (0x0000, 0x33FF),
    (0xA640, 0xA69F),
    (0xA720, 0xABFF),
    (0xF900, 0xFAFF),
    (0xFB00, 0xFB4F),
    (0xFE00, 0xFFFD),
    (0x1F100, 0x1FAFF),
    (0xE0000, 0xE0FFF),
)

_SURE = (
    (0x0000, 0x052F),
    (0x2000, 0x2BFF),
    (0x3000, 0x33FF),
    (0xF900, 0xFAFF),
    (0xFE00, 0xFE0F),
    (0xFE30, 0xFFFD),
    (0x1F100, 0x1FAFF),
)
"""Blocks of which Python's Unicode tables and those in ``tokenizers`` say the same (tested)."""


def _each(blocks: tuple[tuple[int, int], ...]) -> Iterator[int]:
    for first, last in blocks:
        yield from range(first, last + 1)


def is_invisible(character: str) -> bool:
    """Return whether a character cannot be seen, so that bags, tokens and scores ignore it.

    These are control characters that are no whitespace (category Cc), format controls (Cf: soft
    hyphen, zero-width space and joiners, direction marks, byte-order mark), and what Unicode calls
    default-ignorable (variation selectors, fillers). Private characters (Co) may be seen, and so
    may unassigned ones (Cn), of which BERT's tokenizer makes tokens.
    """
    category = unicodedata.category(character)
    if category in ("Cc", "Cf"):
        return not character.isspace()
    return category != "Cn" and any(first <= ord(character) <= last for first, last in _IGNORABLE)


def without_invisible(text: str) -> str:
    """Return a text without its invisible characters.

    >>> without_invisible("红\u200b色\ufeff")
    '红色'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character for character in text if not is_invisible(character))


def is_blank(text: str) -> bool:
    """Return whether a text has no character that can be seen.

    >>> is_blank(" \u200b\ufeff"), is_blank("裙")
    (True, False)
    """
    return all(character.isspace() or is_invisible(character) for character in text)


_SENTENCE_MARKS = frozenset("！（），：；？［］｛｝～｟｠｡｢｣､･")


@cache
def width_forms() -> dict[str, str]:
    """Return the usual form of full-width and half-width characters.

    These are letters, digits and signs of double width (Ａ５％．) and half-width Katakana (ｶ): what
    Unicode calls a wide or narrow form of one other character. Left out are the marks of Chinese
    sentences (，！（）…), whose wide form is the usual one there, and half-width Hangul, whose
    letters would become parts of syllables.

    >>> width_forms()["Ａ"], width_forms()["ｶ"]
    ('A', 'カ')
    """
    forms = {}
    for character in map(chr, (0x3000, *range(0xFF01, 0xFFA0), *range(0xFFE0, 0xFFEF))):
        kind, _, usual = unicodedata.decomposition(character).partition(" ")
        if kind in ("<wide>", "<narrow>") and character not in _SENTENCE_MARKS:
            forms[character] = chr(int(usual, 16))
    return forms


def codes_of(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return all code points of ``texts`` end to end.

    Returns:
        codes [C] (lone surrogates become U+FFFD) and offsets [n+1].
    """
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, np.uint32)
    surrogates = (codes >= 0xD800) & (codes <= 0xDFFF)
    if surrogates.any():
        codes = np.where(surrogates, np.uint32(0xFFFD), codes)
    return codes, offsets


def _fold(character: str) -> str:
    """Fold one character: half width, lower case, no accents."""
    if character.isspace():
        return " "
    folded = unicodedata.normalize("NFKC", character).lower()
    base = [c for c in unicodedata.normalize("NFD", folded) if not unicodedata.combining(c)]
    if len(base) == 1 and unicodedata.name(base[0], "").startswith("LATIN "):
        return base[0]
    return folded if len(folded) == 1 else character.lower()[:1] or character


@cache
def fold_table() -> npt.NDArray[np.uint32]:
    """Return the folded code point of each code point [0x110000]."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for code in _each(_WORKED_OUT):
        table[code] = ord(_fold(chr(code)))
    return table


def fold(text: str) -> str:
    """Fold a text, character by character, as titles and entries are for matching.

    >>> fold("ＬＥＤ Café")
    'led cafe'
    """
    codes, _ = codes_of([text])
    return fold_table()[codes].astype("<u4").tobytes().decode("utf-32-le")


@cache
def class_table() -> npt.NDArray[np.uint8]:
    """Return the class (OTHER, SPACE, LATIN, …) of each code point [0x110000]."""
    table = np.full(CODE_POINTS, OTHER, np.uint8)
    for code in _each(_WORKED_OUT):
        table[code] = _class(chr(code))
    return table


def _class(character: str) -> int:
    if character.isspace():
        return SPACE
    if is_invisible(character):
        return INVISIBLE
    character = _fold(character)
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Mc") or "\U0001f3fb" <= character <= "\U0001f3ff":
        return MARK
    if category == "Nd":
        return DIGIT
    if category[0] == "L" and not _east_asian(character):
        return LATIN
    return PUNCT if category[0] in "PS" else OTHER


def _east_asian(character: str) -> bool:
    return 0x3000 <= ord(character) <= 0x33FF or 0xF900 <= ord(character) <= 0xFAFF


@cache
def wordpiece_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return the cleaning, splitting of ideographs, accent stripping and lower-casing of BERT.

    Returns:
        The action of each code point [0x110000] (DROP, WHITE, ISOLATED, WORD, UNSURE) and the code
        point that it becomes [0x110000]. UNSURE are code points that become several characters,
        may be reordered by Unicode normalisation, or lie outside the blocks in ``_SURE``.
    """
    action = np.full(CODE_POINTS, UNSURE, np.uint8)
    becomes = np.arange(CODE_POINTS, dtype=np.uint32)
    for first, last in _HAN:
        action[first : last + 1] = ISOLATED
    for code in _each(_SURE):
        action[code], becomes[code] = _wordpiece_action(chr(code))
    return action, becomes


def _wordpiece_action(character: str) -> tuple[int, int]:
    code = ord(character)
    category = unicodedata.category(character)
    if code in (0, 0xFFFD):
        return DROP, code
    if character in "\t\n\r":
        return WHITE, code
    if category in ("Cc", "Cf", "Co"):
        return DROP, code
    if category == "Cn":
        return UNSURE, code
    if character.isspace():
        return WHITE, code
    bare = [c for c in unicodedata.normalize("NFD", character) if unicodedata.category(c) != "Mn"]
    lower = "".join(bare).lower()
    if not lower:
        return DROP, code
    if len(lower) > 1 or unicodedata.combining(lower):
        return UNSURE, code
    kind = unicodedata.category(lower)
    ascii_symbol = "!" <= lower <= "~" and not lower.isalnum()
    isolated = kind[0] == "P" or ascii_symbol or _is_han(code)
    return (ISOLATED if isolated else WORD), ord(lower)


def _is_han(code: int) -> bool:
    return any(first <= code <= last for first, last in _HAN)
