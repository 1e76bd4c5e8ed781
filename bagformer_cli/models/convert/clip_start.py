"""Start a model from the towers of a Chinese-CLIP (``text.chinese_clip``, ``image.chinese_clip``).

The sizes of the towers are taken over, then their weights and their projections. The length of a
title, the image size and the temperature stay those of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.encoders.pretrained_bert import require_equal_vocabulary
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.chinese_clip import IGNORED, ChineseClip, open_chinese_clip
from bagformer_cli.models.convert.clip_names import BACKBONE, BERT
from bagformer_cli.models.convert.report import ConversionError, Shape
from bagformer_cli.models.convert.tensors import Ignored, assemble

TEXT, IMAGE = "text.chinese_clip", "image.chinese_clip"
_OTHER_TOWER = Ignored(re.compile(""), tr("the other tower"))


@dataclass(frozen=True)
class ClipStart:
    """The Chinese-CLIPs that a configuration names.

    Attributes:
        text: The one of the text tower; None: that tower starts otherwise.
        image: The one of the image tower; None: that tower starts otherwise.
    """

    text: ChineseClip | None
    image: ChineseClip | None

    @classmethod
    def of(cls, config: RunConfig) -> ClipStart:
        """Read the Chinese-CLIPs that a configuration names.

        Raises:
            InputError: One does not exist, or its tokenizer has other rules.
            CheckpointError: One cannot be read, or is another model.
        """
        text, image = config.text.chinese_clip, config.image.chinese_clip
        first = None if text is None else open_chinese_clip(text, TEXT)
        if image is None:
            return cls(first, None)
        return cls(first, first if image == text else open_chinese_clip(image, IMAGE))

    def settings(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the sizes of the towers.

        Raises:
            ConfigError: Titles are longer than the positions of the text tower, or the vectors of
                the two towers have different dimensions.
        """
        if self.text is None and self.image is None:
            return config
        config = config.model_copy(deep=True)
        if self.text is not None:
            theirs, text = self.text.settings.text, config.text
            positions = int(theirs.options.get("max_position_embeddings", 512))
            if text.max_tokens > positions:
                raise ConfigError(
                    tr("The pretrained BERT reads shorter titles only."),
                    where="text.max_tokens",
                    found=text.max_tokens,
                    expected=tr("at most {n}", n=positions),
                )
            for name in ("layers", "width", "heads", "feed_forward", "options"):
                setattr(text, name, getattr(theirs, name))
        if self.image is not None:
            given, image = self.image.settings.image, config.image
            for name in ("backbone", "options", "attention_pool"):
                setattr(image, name, getattr(given, name))
            image.mean, image.std = image.mean or given.mean, image.std or given.std
        self._set_projections(config)
        return config

    def _set_projections(self, config: RunConfig) -> None:
        named = [one.settings for one in (self.text, self.image) if one is not None]
        sizes = {one.embed_dim for one in named}
        if len(sizes) > 1:
            raise ConfigError(
                tr("The two Chinese-CLIPs have vectors of different dimensions."),
                where=f"{TEXT}, {IMAGE}",
                found=" / ".join(map(str, sorted(sizes))),
            )
        config.model.embed_dim = sizes.pop()
        both = len(named) == 2  # a projection that starts from random weights keeps its bias
        if both:
            config.model.projection_bias = any(one.projection_bias for one in named)

    def require_same_vocabulary(self, vocabulary: tuple[str, ...]) -> None:
        """Raise unless the text tower was trained with the tokenizer's vocabulary.

        Raises:
            CheckpointError: It was trained with another one.
        """
        if self.text is not None:
            rows = self.text.settings.vocab_size
            require_equal_vocabulary(
                f"{TEXT}: {self.text.source}", self.text.vocabulary, rows, vocabulary
            )

    def weights(self, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
        """Make the weights of the towers and their projections.

        Args:
            shapes: The shapes of all weights of a model with their sizes, by our names.

        Raises:
            ConversionError: Tensors are missing or of another shape.
        """
        made: dict[str, Tensor] = {}
        for clip, setting, prefixes in (
            (self.text, TEXT, (BERT, "dual.text_proj.")),
            (self.image, IMAGE, (BACKBONE, "dual.vision_proj.")),
        ):
            if clip is None:
                continue
            names = [name for name in shapes if name.startswith(prefixes)]
            ignored = (*IGNORED, _OTHER_TOWER)
            weights, report = assemble(clip.weights(names), shapes, clip.tensors, ignored)
            if not report.complete:
                raise ConversionError(
                    tr("The tensors of the checkpoint are not those of the model."),
                    report,
                    f"{setting}: {clip.file}",
                )
            made |= weights
        return made
