"""Build the title encoder of a configuration.

Here alone, ``compat: bagformer`` switches from our bags to those of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bagformer_cli.config import RunConfig
from bagformer_cli.original.text import CompatSegmenter, CompatTitleEncoder, WordList
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tokenizer import Tokenizer


def build_titles(config: RunConfig, progress: Progress = SILENT) -> TitleEncoder:
    """Build the title encoder that the ``text`` section of a configuration describes.

    Args:
        config: The configuration.
        progress: Receives a warning for dictionary lines that are left out.
    """
    titles = title_encoder(config, Tokenizer.load(config.text.vocabulary), config.text.lexicons)
    if config.compat is None:
        for remark in titles.segmenter.lexicon.remarks:
            progress.warn(remark)
    return titles


def title_encoder(
    config: RunConfig, tokenizer: Tokenizer, lexicons: Sequence[str | Path]
) -> TitleEncoder:
    """Build a title encoder with the given tokenizer and dictionaries, e.g. a model folder's."""
    text = config.text
    if config.compat is None:
        segmenter = Segmenter(Lexicon.load(lexicons))
        tokenizer = tokenizer.folding(text.fold_width)
        return TitleEncoder(tokenizer, segmenter, text.max_tokens, text.add_sep)
    compat = CompatSegmenter(WordList.load(lexicons), tokenizer)
    return CompatTitleEncoder(tokenizer, compat, text.max_tokens, text.add_sep)
