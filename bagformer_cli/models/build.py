"""Build a model from a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertModel

from bagformer_cli.config import CrossConfig, RunConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD
from bagformer_cli.encoders.backbone import create_backbone
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder, PredictionHead
from bagformer_cli.encoders.pretrained_bert import load_bert, require_same_vocabulary, sizes_of
from bagformer_cli.encoders.regions import BOX, RegionEncoder
from bagformer_cli.encoders.states import States, TitleStates
from bagformer_cli.encoders.text import BagOfWords, TextEncoder
from bagformer_cli.encoders.token_maxsim import TokenMaxSim
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.machine import memory
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.clip_start import ClipStart
from bagformer_cli.models.cross_encoders import Captioner, CrossEncoder, MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded
from bagformer_cli.models.trained import trained_scorers, trains_cross_encoder
from bagformer_cli.original.model import build_dual_encoder, build_matching_head
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles, title_encoder
from bagformer_cli.text.tokenizer import Tokenizer


class RetrievalModel(nn.Module):
    """A dual encoder, perhaps a cross-encoder, and the title encoder: one model folder.

    Args:
        config: The configuration it was built from, with the sizes it really has.
        titles: Turns titles into tokens and bags.
        dual: The dual encoder.
        cross: The cross-encoder; None: the model cannot rerank.

    Attributes:
        trained: Scorers that were trained (or are, while training runs): see
            :func:`trained_scorers`. A cross-encoder reranks only if ``slow`` is one of them.
        temperature: Divides scores to give logits.
        distill_line: [2], factor and offset of the student's scores in a distillation by ``mse``;
            None: the configuration has none. No score of the model uses it.
    """

    def __init__(
        self, config: RunConfig, titles: TitleEncoder, dual: DualEncoder, cross: CrossEncoder | None
    ) -> None:
        super().__init__()
        self.config = config
        self.titles = titles
        self.dual = dual
        self.cross = cross
        self.trained = trained_scorers(config)
        self.temperature = nn.Parameter(
            torch.tensor(config.objectives.temperature.initial),
            requires_grad=config.objectives.temperature.learned,
        )
        late = config.objectives.own_temperature and config.model.late is not None
        self.late_temperature = nn.Parameter(self.temperature.detach().clone()) if late else None
        distill = config.distill
        learned = distill is not None and distill.loss == "mse" and distill.learned_scale
        self.distill_line = nn.Parameter(torch.tensor([0.5, 0.5])) if learned else None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.temperature.device

    @property
    def as_original(self) -> bool:
        """True if images are decoded as the published BagFormer code does (``compat``)."""
        return self.config.compat is not None

    @property
    def can_rerank(self) -> bool:
        """True if the model has a cross-encoder that was trained to score pairs."""
        return self.cross is not None and "slow" in self.trained

    def encode_texts(self, text: TextBatch | TitleStates, *, states: bool = True) -> Encoded:
        """Encode titles.

        Args:
            text: The titles, or the text tower's output for them.
            states: Also prepare what the cross-encoder reads, if there is one.
        """
        encoded = self.dual.encode_texts(text)
        if self.cross is None or not states:
            return encoded
        return self.cross.read_texts(text.text if isinstance(text, TitleStates) else text, encoded)

    def encode_images(self, pixels: Tensor | States, *, states: bool = True) -> Encoded:
        """Encode images.

        Args:
            pixels: [B, 3, S, S] normalised images, [B, R, F + 5] regions, or the image tower's
                output for them.
            states: Also prepare what the cross-encoder reads, if there is one.
        """
        encoded = self.dual.encode_images(pixels)
        if self.cross is None or not states:
            return encoded
        return self.cross.read_images(pixels, encoded)

    @torch.no_grad()
    def clamp_temperature(self) -> Tensor:
        """Bring the temperatures back between their bounds; return the shared one."""
        bounds = self.config.objectives.temperature
        if self.late_temperature is not None:
            self.late_temperature.clamp_(bounds.minimum, bounds.maximum)
        return self.temperature.clamp_(bounds.minimum, bounds.maximum)


def require_cross_encoder(model: RetrievalModel | None, where: str | Path | None = None) -> None:
    """Refuse to rerank with a model that has no trained cross-encoder.

    Args:
        model: The model that is to rerank; None is refused.
        where: Its folder, for the message.

    Raises:
        CheckpointError: It has none, or its cross-encoder was not trained.
    """
    if model is None or not model.can_rerank:
        raise CheckpointError(
            tr("This model has no trained cross-encoder, so it cannot rerank."),
            where=where,
            hint=tr(
                "Leave out --rerank, or train a cross-encoder: xmr train --mode captioner, or a "
                "config with objectives.itm above 0."
            ),
        )


def build_model(
    config: RunConfig,
    titles: TitleEncoder | None = None,
    *,
    pretrained: bool = True,
    keep_cross: bool = False,
) -> RetrievalModel:
    """Build the model of a configuration.

    A cross-encoder that no objective trains is left out; ``config.model.cross`` of the result is
    then None.

    Args:
        config: The run's configuration; it is copied.
        titles: Turns titles into tokens and bags; None: built from ``config.text``.
        pretrained: Load the pretrained weights that the configuration names. Set False if weights
            of the whole model are loaded next.
        keep_cross: Build the cross-encoder of ``config.model.cross`` in any case, because its
            weights are loaded next.

    Raises:
        ConfigError: A setting is impossible.
        CheckpointError: Pretrained weights cannot be read.
    """
    config = config.model_copy(deep=True)
    if not keep_cross and not trains_cross_encoder(config):
        config.model.cross = None
    if torch.get_default_device().type != "meta":
        require_memory(config)
    bert = None
    if pretrained and config.text.pretrained is not None:
        bert = load_bert(config.text.pretrained, config.text.layers)
        config.text = sizes_of(bert, config.text)
    start = ClipStart.of(config) if pretrained else ClipStart(None, None)
    config = start.settings(config)
    if titles is None:
        titles = build_titles(config)
    start.require_same_vocabulary(titles.tokenizer.vocabulary)
    if bert is not None and config.text.pretrained is not None:
        require_same_vocabulary(config.text.pretrained, bert, titles.tokenizer.vocabulary)
    # The order of construction is part of a seeded run: each part draws its random weights in
    # turn. The cross-encoder comes last, so the towers are the same with and without one.
    vision = _build_vision(config, pretrained)
    text = _build_text(config, titles, bert)
    dual = build_dual_encoder(config, text, vision)
    cross = None
    if config.model.cross is not None:
        cross = _build_cross(config, config.model.cross, dual, bert, titles.tokenizer.vocab_size)
    if config.model.gradient_checkpointing:
        text.checkpoint_gradients()
        vision.checkpoint_gradients()
    model = RetrievalModel(config, titles, dual, cross)
    if start.text is not None or start.image is not None:
        model.load_state_dict(start.weights(shapes_of(model)), strict=False)
        start_copies(model, model.state_dict())
    return model


def start_copies(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Start weights that are copies of others from the present values of those.

    The matching head's ``token_maxsim`` has copies of the projections, ``cross.token_maxsim.NAME``
    of ``dual.NAME``. Call it after loading weights into the dual encoder.

    Args:
        model: The model.
        names: Names of weights that were not loaded.

    Returns:
        The names that are no copies, in the same order.
    """
    weights = model.state_dict()
    others = []
    for name in names:
        own = name.removeprefix("cross.token_maxsim.")
        source = None if own == name else weights.get(f"dual.{own}")
        if source is None:
            others.append(name)
        else:
            weights[name].copy_(source)
    return others


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights by name."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def require_memory(config: RunConfig) -> None:
    """Check a configuration by building its model without memory for weights.

    It takes a tenth of a second and needs no dictionaries, no network and no pretrained weights.

    Raises:
        ConfigError: A setting is impossible, or the weights alone exceed this machine's memory.
    """
    model = build_without_memory(config)
    needed = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    available = memory()
    if available is not None and needed > available:
        raise ConfigError(
            tr("The model of this configuration does not fit into memory."),
            where="text, image, model",
            found=f"{needed / 1e9:,.0f} GB",
            expected=tr("at most {n}", n=f"{available / 1e9:,.0f} GB"),
        )


def build_without_memory(config: RunConfig) -> RetrievalModel:
    """Build the model of a configuration on the meta device: shapes without values."""
    # The number of tokens hardly matters here; the built-in vocabulary is always there.
    titles = title_encoder(config, Tokenizer.load("builtin"), [])
    with torch.device("meta"):
        return build_model(config, titles, pretrained=False, keep_cross=True)


def takes_sizes(config: RunConfig) -> bool:
    """Tell whether pretrained encoders decide sizes of the model that is built."""
    named = (config.text.pretrained, config.text.chinese_clip, config.image.chinese_clip)
    return any(name is not None for name in named)


def check_pretrained(config: RunConfig) -> RunConfig:
    """Load the pretrained weights that a configuration names, for their errors.

    Returns:
        The configuration with the sizes that they have.

    Raises:
        ConfigError: They have too few layers or positions, or vectors of different dimensions.
        CheckpointError: They cannot be read or do not fit.
    """
    config = config.model_copy(deep=True)
    source, image = config.text.pretrained, config.image
    if source is not None:
        bert = load_bert(source, config.text.layers)
        config.text = sizes_of(bert, config.text)
        require_same_vocabulary(source, bert, Tokenizer.load(config.text.tokenizer).vocabulary)
    if image.pretrained and image.regions is None:
        create_backbone(image, image.pretrained)
    start = ClipStart.of(config)
    if start.text is not None or start.image is not None:
        titles = title_encoder(config, Tokenizer.load(config.text.vocabulary), [])
        start.require_same_vocabulary(titles.tokenizer.vocabulary)
        config = start.settings(config)
        with torch.device("meta"):  # sizes only
            model = build_model(config, titles, pretrained=False)
        start.weights(shapes_of(model))
    return config


def _build_vision(config: RunConfig, pretrained: bool) -> VisionEncoder | RegionEncoder:
    """Build the image tower and note in ``config`` its size and how its pixels are normalised."""
    image = config.image
    if image.regions is not None:
        return RegionEncoder(image.regions, config.text.width)
    if config.compat is not None and pretrained and image.pretrained:
        image.mean, image.std = CLIP_MEAN, CLIP_STD  # as the original code normalises
    vision = VisionEncoder(image, pretrained=pretrained)
    image.mean, image.std, image.size = vision.mean, vision.std, vision.size
    return vision


def _build_text(
    config: RunConfig, titles: TitleEncoder, bert: BertModel | None
) -> TextEncoder | BagOfWords:
    words = titles.tokenizer
    if config.text.encoder == "words":
        special = (words.pad_id, words.cls_id, words.sep_id)
        return BagOfWords(config.text, words.vocab_size, special)
    return TextEncoder(config.text, words.vocab_size, words.pad_id, bert)


def _build_cross(
    config: RunConfig,
    settings: CrossConfig,
    dual: DualEncoder,
    bert: BertModel | None,
    vocab_size: int,
) -> CrossEncoder:
    if settings.kind == "captioner":
        return Captioner(settings, config.text, config.image, dual, vocab_size)
    text, vision = dual.text_encoder, dual.vision_encoder
    fusion: FusionEncoder | JointEncoder
    if settings.fusion == "joint":
        with torch.no_grad():
            positions = vision.eval()(largest_image(config)).shape[1]
        vision.train()
        places = positions - int(vision.has_class)
        fusion = JointEncoder(text, vision.width, places, drops_first=vision.has_class)
    else:
        fusion = FusionEncoder(config.text, settings.layers, dual.image_width)
        if bert is not None:
            fusion.load_bert_layers(bert, config.text.layers)
    head: MatchingHead = build_matching_head(config, fusion, text.width)
    if settings.token_maxsim:
        head.token_maxsim = TokenMaxSim(
            dual.text_proj, dual.vision_proj, image_first=config.model.image_first
        )
    eps = config.text.options.get("layer_norm_eps", 1e-12)
    if config.objectives.mlm > 0:
        head.mlm_head = PredictionHead(text.width, vocab_size, eps=eps)
    if config.objectives.mfm > 0:
        head.mfm_head = PredictionHead(text.width, vision.width, own=True, eps=eps)
    return head


def largest_image(config: RunConfig) -> Tensor:
    """Make one input of the image tower with the most positions that occur."""
    regions = config.image.regions
    if regions is None:
        return torch.zeros(1, 3, config.image.size, config.image.size)
    return torch.ones(1, regions.maximum, regions.width + BOX + 1)
