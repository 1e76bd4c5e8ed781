"""Configuration to model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertModel

from bagformer_cli.config import CrossConfig, RunConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder, PredictionHead
from bagformer_cli.encoders.regions import BOX, RegionEncoder
from bagformer_cli.encoders.text import BagOfWords, TextEncoder, load_bert, sizes_of
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.models.cross import Captioner, MatchingHead, SlowScorer
from bagformer_cli.models.dual import DualEncoder, Encoded
from bagformer_cli.original.model import dual_encoder, matching_head
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles


class RetrievalModel(nn.Module):
    """What a model folder holds: the fast scorer, the slow one, and how titles become tokens.

    Args:
        config: The configuration it was built from, with the sizes it really has.
        titles: Titles to tokens and bags.
        dual: The fast scorer.
        cross: The slow scorer, or None.
    """

    def __init__(
        self, config: RunConfig, titles: TitleEncoder, dual: DualEncoder, cross: SlowScorer | None
    ) -> None:
        super().__init__()
        self.config = config
        self.titles = titles
        self.dual = dual
        self.cross = cross
        self.temperature = nn.Parameter(
            torch.tensor(config.objectives.temperature.initial),
            requires_grad=config.objectives.temperature.learned,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.temperature.device

    def encode_texts(self, text: TextBatch, *, states: bool = True) -> Encoded:
        """Titles as every scorer takes them; without ``states`` the slow one is left out."""
        encoded = self.dual.encode_texts(text)
        if self.cross is None or not states:
            return encoded
        return self.cross.see_texts(text, encoded)

    def encode_images(self, pixels: Tensor, *, states: bool = True) -> Encoded:
        """Images as every scorer takes them; without ``states`` the slow one is left out."""
        encoded = self.dual.encode_images(pixels)
        if self.cross is None or not states:
            return encoded
        return self.cross.see_images(pixels, encoded)

    @torch.no_grad()
    def clamp_temperature(self) -> Tensor:
        """Bring the temperature back into its bounds; returns it."""
        bounds = self.config.objectives.temperature
        return self.temperature.clamp_(bounds.minimum, bounds.maximum)


def build_model(
    config: RunConfig, titles: TitleEncoder | None = None, *, pretrained: bool = True
) -> RetrievalModel:
    """Build the model of a configuration.

    Args:
        config: The run's configuration.
        titles: What makes tokens and bags; None: from ``config.text``.
        pretrained: Load the pretrained weights that the configuration names. False where weights
            of the whole model are loaded next.

    Raises:
        ConfigError: An impossible setting.
        CheckpointError: Pretrained weights that cannot be read.
    """
    config = config.model_copy(deep=True)
    bert = None
    if pretrained and config.text.pretrained is not None:
        bert = load_bert(config.text.pretrained, config.text.layers)
        config.text = sizes_of(bert, config.text)
    if titles is None:
        titles = build_titles(config)
    words = titles.tokenizer
    vision: VisionEncoder | RegionEncoder
    if config.image.regions is not None:
        vision = RegionEncoder(config.image.regions, config.text.width)
    else:
        vision = VisionEncoder(config.image, pretrained=pretrained)
    text: TextEncoder | BagOfWords
    if config.text.encoder == "words":
        special = (words.pad_id, words.cls_id, words.sep_id)
        text = BagOfWords(config.text, words.vocab_size, special)
    else:
        text = TextEncoder(config.text, words.vocab_size, words.pad_id, bert)
    dual = dual_encoder(config, text, vision)
    cross: SlowScorer | None = None
    slow = config.model.cross
    if slow is not None and slow.kind == "captioner":
        cross = Captioner(slow, config.text, config.image, dual, words.vocab_size)
    elif slow is not None:
        cross = _matching(config, slow, dual, text, vision, bert, words.vocab_size)
    if config.model.gradient_checkpointing:
        text.checkpoint_gradients()
        vision.checkpoint_gradients()
    return RetrievalModel(config, titles, dual, cross)


def _matching(
    config: RunConfig,
    slow: CrossConfig,
    dual: DualEncoder,
    text: TextEncoder | BagOfWords,
    vision: VisionEncoder | RegionEncoder,
    bert: BertModel | None,
    vocab_size: int,
) -> MatchingHead:
    """The matching head, with the heads of masked modelling where that is trained."""
    fusion: FusionEncoder | JointEncoder
    if slow.fusion == "joint":
        assert isinstance(text, TextEncoder)
        with torch.no_grad():
            seen = vision.eval()(any_image(config)).shape[1]
        vision.train()
        places = seen - int(vision.has_class)
        fusion = JointEncoder(text, vision.width, places, drops_first=vision.has_class)
    else:
        fusion = FusionEncoder(config.text, slow.layers, dual.image_width)
        if bert is not None:
            fusion.load_bert_layers(bert, config.text.layers)
    cross = matching_head(config, fusion, text.width)
    eps = config.text.options.get("layer_norm_eps", 1e-12)
    if config.objectives.mlm > 0:
        cross.mlm_head = PredictionHead(text.width, vocab_size, eps=eps)
    if config.objectives.mfm > 0:
        cross.mfm_head = PredictionHead(text.width, vision.width, own=True, eps=eps)
    return cross


def any_image(config: RunConfig) -> Tensor:
    """One image of the largest kind."""
    regions = config.image.regions
    if regions is None:
        return torch.zeros(1, 3, config.image.size, config.image.size)
    return torch.ones(1, regions.maximum, regions.width + BOX + 1)
