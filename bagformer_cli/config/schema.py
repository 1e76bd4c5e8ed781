"""The sections about data, model and objectives: every key with its type, default, meaning, range.

``training.py`` has the sections of the training loop.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bagformer_cli.config.options import ImageOptions, TextOptions
from bagformer_cli.config.section import (
    Channels,
    Layers,
    NonNegative,
    Positive,
    Section,
    Share,
    Spreads,
    Width,
)
from bagformer_cli.messages import tr

Interaction = Literal["cls", "tokenwise", "bagwise"]
Pooling = Literal["each", "text", "image", "both", "mean"]
Compat = Literal["bagformer", "bagformer-readme"]


class AugmentConfig(Section):
    """Random augmentation of training images. The defaults are those of ALBEF and BagFormer."""

    crop_scale: tuple[Share, Share] = (0.5, 1.0)
    """Minimum and maximum share of the image area that a random resized crop keeps."""
    flip: bool = True
    """Flip each image horizontally with probability 0.5."""
    randaugment: tuple[int, int] | None = (2, 7)
    """RandAugment: number of operations and their magnitude (0-10). Null: no RandAugment."""


class DataConfig(Section):
    """The training data and how it is read."""

    dataset: str = "demo"
    """A folder in MUGE form, or ``demo`` or ``muge``."""
    augment: AugmentConfig | None = AugmentConfig()
    """Null: training images are only resized, as in evaluation."""
    titles_per_image: Annotated[int, Field(ge=1, le=1000)] = 1
    """Titles of each image in a batch. 1: (title, image) pairs, as in the original. More titles
    share the cost of encoding the image."""
    hard_negatives: str | None = None
    """File of hard negatives that ``xmr mine`` wrote. Batches then consist of groups: a pair, and
    pairs of images from the file that resemble its title. Null: random batches."""
    negatives_per_title: Annotated[int, Field(ge=1, le=1000)] = 3
    """Hard negatives in a group, drawn from those of the title in each epoch. A batch of 32 with 3
    of them has 8 groups, so an epoch begins a group for every fourth pair. Larger values make
    batches harder and less varied."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Workers that decode and augment images ahead of the training step: processes, or threads if
    all images fit into ``cache_mb``. They change no pixel. 0: the main process does it alone. Null:
    one per core, shared equally by the training processes of this machine."""
    cache_mb: Annotated[int, Field(ge=0, le=2**31 - 1)] = 512
    """Memory for decoded images, in MB. A dataset that fits is decoded only once."""


class TextConfig(Section):
    """The text tower: tokenizer, entity bags, BERT."""

    tokenizer: str = "builtin"
    """``builtin``, a WordPiece vocab file, a model folder, or a hub name."""
    lexicons: list[str] = ["builtin"]
    """Entity dictionaries: ``builtin`` or file names. Later ones add to earlier ones."""
    max_tokens: Annotated[int, Field(ge=3, le=512)] = 25
    """Maximum number of tokens of a title, [CLS] and [SEP] included. Longer titles are cut."""
    fold_width: bool = True
    """Read full-width letters, digits and signs (ｉＰｈｏｎｅ１５) and half-width Katakana as the
    usual characters, and ignore all invisible ones. Not with ``compat``. Models trained before this
    setting existed have false."""
    add_sep: bool = True
    """End each title with [SEP], as in BERT's training."""
    pretrained: str | None = None
    """Pretrained BERT to start from: a model folder or a hub name. Null: random weights."""
    chinese_clip: str | None = None
    """Chinese-CLIP whose text tower and projection to start from: a folder of transformers, a
    ``.pt`` of the original repository, or a hub name. All sizes of the tower are its own; with
    ``tokenizer: builtin`` so is the vocabulary. Null: ``pretrained`` decides."""
    layers: Layers = 6
    """Transformer layers. A pretrained BERT contributes its first ``layers`` layers."""
    width: Width = 768
    """Hidden size. Must be a multiple of ``heads``."""
    heads: Width = 12
    """Attention heads of a layer."""
    feed_forward: Annotated[int, Field(ge=1, le=262144)] = 3072
    """Size of the feed-forward layers."""
    dropout: Share = 0.1
    """Dropout of hidden states and attention weights."""
    summary: Literal["first", "mean"] = "first"
    """State that stands for the whole title (``cls``). ``first``: [CLS]. ``mean``: the mean of all
    tokens, as sentence encoders (e5, gte) are trained."""
    options: TextOptions = {}
    """Further arguments of transformers' ``BertConfig`` (``layer_norm_eps``, ``hidden_act`` …)."""
    frozen_layers: Literal["all"] | Annotated[int, Field(ge=0, le=1000)] = 0
    """Freeze the embeddings and the first ``frozen_layers`` layers, or ``all`` of the tower; see
    ``training.encode_frozen_once``. 0: train everything."""
    encoder: Literal["bert", "words"] = "bert"
    """``words``: no BERT; a title is the mean of its word embeddings (Thinking Fast and Slow)."""

    @property
    def vocabulary(self) -> str:
        """Source of the vocabulary: ``tokenizer``, or a Chinese-CLIP that brings one."""
        brought = self.chinese_clip
        if self.tokenizer != "builtin" or brought is None or brought.endswith((".pt", ".pth")):
            return self.tokenizer
        return brought


class RegionsConfig(Section):
    """Image regions that a detector extracted beforehand, used instead of pixels."""

    files: str = "MR_{split}_regions.tsv"
    """TSV files: image id, base64 float32 array [n, width]. A name inside the dataset folder or a
    path; ``{split}`` stands for train, valid or test."""
    width: Width = 2048
    """Feature size of a region."""
    maximum: Annotated[int, Field(ge=1, le=4096)] = 32
    """Regions per image; further ones are ignored."""
    boxes: bool = False
    """Add an embedding of each region's box. Without it, regions have no position."""


class ImageConfig(Section):
    """The image tower: a timm backbone, or regions."""

    backbone: str = "vit_base_patch16_224"
    """A timm model name."""
    pretrained: bool | str = False
    """``true``: timm's pretrained weights of that name. A path: a weight file or a timm folder. A
    hub name (``timm/vit_base_patch16_224.augreg_in21k``): such a folder on the hub."""
    chinese_clip: str | None = None
    """Chinese-CLIP whose image tower and projection to start from, as ``text.chinese_clip``. It
    decides ``backbone``, ``options`` and ``attention_pool``; position embeddings are interpolated
    to ``size``. Null: ``pretrained`` decides."""
    size: Annotated[int, Field(ge=0, le=4096)] = 256
    """Images are resized to ``size`` x ``size`` pixels. 0: the size that the pretrained backbone
    was trained with."""
    options: ImageOptions = {}
    """Further arguments of ``timm.create_model`` (``patch_size``, ``embed_dim``, ``depth`` …)."""
    conv_stem: bool = False
    """Make the patches of a vision transformer by strided 3 x 3 convolutions instead of one large
    one. It learns better from few images. Not with pretrained weights, which have no such layers.
    """
    attention_pool: bool = False
    """Use the attention pooling of the backbone (timm's ``resnet50_clip``): its outputs are the
    class vector and the patches. False: the class vector is the mean of the last feature map."""
    classes: Annotated[float, Field(gt=0)] | None = None
    """Read each position as the class probabilities of the pretrained backbone's own classifier, at
    this temperature. Names of the classes then give a model that works before any training. Null:
    the backbone's features."""
    mean: Channels | None = None
    """Mean of each colour channel (0 to 1) that pixels are normalised with. Null: the value that
    the pretrained backbone was trained with; CLIP's for a backbone trained from scratch."""
    std: Spreads | None = None
    """Standard deviation of each colour channel; null: as for ``mean``."""
    frozen_layers: Literal["all"] | Annotated[int, Field(ge=0, le=1000)] = 0
    """Freeze the input layers and this many blocks (vision transformer) or stages (convolutional
    network) after them, or ``all`` of the tower; see ``training.encode_frozen_once``. 0: all
    layers are trained."""
    regions: RegionsConfig | None = None
    """Read regions instead of pixels; no backbone is then built. Null: pixels."""


class CrossConfig(Section):
    """The cross-encoder: scores (title, image) pairs for reranking and distillation."""

    kind: Literal["matching", "captioner"] = "matching"
    """``matching``: fusion encoder with a matching head (ITM). ``captioner``: log-likelihood of
    the title as a caption of the image, in both reading directions."""
    layers: Layers = 6
    """Layers with cross-attention to the image. With a pretrained BERT they start from the layers
    after those of the text tower."""
    fusion: Literal["cross", "joint"] = "cross"
    """Matching only. ``cross``: fusion layers attend from the title to the image (ALBEF).
    ``joint``: the text tower's BERT reads [CLS; patches; title] as one sequence (QQ-browser);
    ``layers`` is then unused."""
    logits: Literal[1, 2] = 2
    """Matching only. 2: cross-entropy over two logits (ALBEF). 1: binary cross-entropy."""
    token_maxsim: bool = False
    """Matching only. Add each token's best cosine in the image, its part of MaxSim, to what the
    head reads. The projections start as copies of the towers', so it helps where trained towers
    come first. Requires a late interaction."""
    finer: Annotated[int, Field(ge=0, le=4)] = 0
    """Captioner only: feature pyramid levels. Each level doubles the last feature map's size and
    adds an earlier, finer map, so that attention sees more positions."""


class SharedConfig(Section):
    """One BERT for both sides: it also reads the image, as a sequence of patches or regions."""

    cells: Width = 32
    """A larger patch grid is average-pooled to this many patches first (32: 4 x 8)."""


class HeadConfig(Section):
    """A transformer on top of both towers that makes the single vector of a side (ALADIN)."""

    layers: Layers = 2
    """Transformer layers."""
    heads: Width = 4
    """Attention heads of a layer."""
    feed_forward: Annotated[int, Field(ge=1, le=262144)] = 768
    """Size of the feed-forward layers."""
    dropout: Share = 0.1
    """Dropout of hidden states and attention weights."""


class ModelConfig(Section):
    """Vectors, scorers and encoders shared by both sides."""

    interaction: Interaction = "bagwise"
    """Vectors of a title: one ([CLS]), one per token, or one per entity bag."""
    bag_fusion: Literal["early", "late"] = "late"
    """Sum the tokens of a bag before (early) or after (late) the text encoder."""
    embed_dim: Width = 256
    """Dimension of every vector."""
    projection_bias: bool = True
    """Give the two projections to vectors a bias. CLIP has none."""
    keep: Positive | Literal["all"] = "all"
    """Vectors per side. ``all``: as ``interaction`` says. 1: position 0 alone (single-vector). n:
    position 0 and the first positions after it; a patch grid is average-pooled to n patches."""
    codes: Annotated[int, Field(ge=0, le=65536)] = 0
    """Code tokens: learned inputs added to each side and scored like the rest (Inflate)."""
    code_gain: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Initial gain of the code tokens' LayerNorm, which is learned. 1: as large as word embeddings.
    An encoder of one or two layers then passes them on nearly unchanged, the same for every item:
    take about 0.3 there."""
    shared: SharedConfig | None = None
    """Null: each side has an encoder."""
    pooling: Pooling = "each"
    """How the dot products of a pair become its score. ``text``: max over the image's vectors, sum
    over the title's, used for both directions (Inflate and Shrink, ALADIN). ``image``: max over the
    title's, sum over the image's, for both. ``each``: ``text`` for title to image, ``image`` for
    image to title (BagFormer, FILIP). ``both``: the sum of the two. ``mean``: mean of all dot
    products. With one score for both directions, an image ranks titles by sums over the titles'
    vectors, in which long titles score higher; ``objectives.late_scale: mean`` takes that away."""
    image_first: bool = True
    """Include the image's first position (class token or first region) among its vectors."""
    single_projection: Literal["shared", "own"] = "shared"
    """Projections of the single vector ([CLS], class token) of a model with a late interaction.
    ``shared``: those of the other vectors, as in BagFormer. ``own``: two more, so that ITC shares
    the towers only."""
    head: HeadConfig | None = None
    """Makes the single vector of a side. Null: position 0 of its encoder."""
    alignment: Literal["tokenwise", "bagwise"] | None = None
    """With ``interaction: cls``: a second scorer, a late interaction of the same towers, which can
    teach the single vectors (ALADIN's alignment head)."""
    freeze_towers: bool = False
    """Train only ``head`` and the cross-encoder."""
    cross: CrossConfig | None = CrossConfig()
    """Null: no cross-encoder."""
    gradient_checkpointing: bool = False
    """Recompute the towers' activations in the backward pass: less memory, a third more time."""

    @property
    def single(self) -> bool:
        """True if titles and images have one vector each."""
        return self.interaction == "cls" or self.keep == 1

    @property
    def late(self) -> Interaction | None:
        """The late interaction that the model computes: ``interaction``, ``alignment`` or none."""
        return self.alignment if self.single else self.interaction


class TemperatureConfig(Section):
    """The temperature: scores are divided by it before a softmax."""

    initial: Annotated[float, Field(gt=0)] = 0.07
    """Value before training. Smaller values weigh the hardest negatives more."""
    minimum: Annotated[float, Field(gt=0)] = 0.05
    """Lower bound during training."""
    maximum: Annotated[float, Field(gt=0)] = 0.5
    """Upper bound during training."""
    learned: bool = True
    """Train the temperature. False: it stays at ``initial``."""

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureConfig:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(tr("initial must lie between minimum and maximum"))
        return self


class MaskingConfig(Section):
    """Inputs that masked modelling (MLM, MFM) hides."""

    tokens: Share = 0.15
    """Share of a title's tokens that is predicted: 80 % of them become [MASK], 10 % a random
    token, 10 % stay."""
    whole_bags: bool = False
    """Hide all tokens of an entity bag together, all in the same way."""
    patches: Share = 0.135
    """Share of an image's patches that are set to zero (0.135: 90 % of 15 %)."""


class MomentumConfig(Section):
    """ALBEF's momentum encoder, queues and soft targets."""

    rate: Share = 0.995
    """Share of its weights that the momentum encoder keeps at each step."""
    queue: Annotated[int, Field(ge=0, le=2**31 - 1)] = 65536
    """Length of the queues: earlier titles and images used as extra negatives. 0: no queue."""
    alpha: Share = 0.4
    """Weight of the soft targets in ITC, late interaction and MLM. It rises linearly from 0 over
    the first epoch."""


class ObjectivesConfig(Section):
    """Weights of the training losses (0: off) and settings they share."""

    itc: NonNegative = 1.0
    """Image-text contrastive loss on the single vectors ([CLS], class token). In a model with late
    interaction it makes the single vectors usable, and costs recall of the late interaction."""
    late_interaction: NonNegative = 1.0
    """Contrastive loss on the MaxSim scores. Unused with ``cls``, where it would equal ITC."""
    itm: NonNegative = 1.0
    """Image-text matching (ITM) with hard negatives, on the cross-encoder."""
    itm_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a batch's pairs used for ITM, the most expensive objective."""
    late_scale: Literal["sum", "mean"] = "sum"
    """Scores of the late-interaction loss: ``sum`` over a side's vectors (BagFormer), or their
    ``mean`` divided by the temperature (FILIP)."""
    itm_negatives: Literal["hard", "random", "shuffled"] = "hard"
    """``hard``: drawn by similarity, one for each title and each image (ALBEF). ``random``: the
    same, all with equal probability (BagFormer's code). ``shuffled``: the second half of the batch
    with its images in reverse order; ``itm_share`` is then unused (QQ-browser)."""
    mlm: NonNegative = 0.0
    """Masked language modelling: predict hidden tokens of a title from the rest and the image."""
    mfm: NonNegative = 0.0
    """Masked patches: each output must identify the features of its hidden patch among those of
    all patches of the batch. Requires ``model.cross.fusion: joint``."""
    mfm_temperature: Annotated[float, Field(gt=0)] | None = None
    """Null: dot products. A number: cosines divided by it (for example 0.1)."""
    masking: MaskingConfig = MaskingConfig()
    """Which tokens and patches MLM and MFM hide."""
    momentum: MomentumConfig | None = None
    """Soft targets and queues for ITC, late interaction and MLM. Null: labels of the batch only."""
    task_sampling: Literal["all", "one"] = "all"
    """Train all objectives at every step, or one of them, drawn at random."""
    caption: NonNegative = 0.0
    """Captioning loss: log-likelihood of the titles in both reading directions."""
    loss: Literal["nce", "power_hinge", "triplet"] = "nce"
    """Loss of ITC and late interaction: InfoNCE; the power-8 soft-max hinge (Inflate and
    Shrink); the triplet loss with the hardest negative (ALADIN)."""
    margin: NonNegative = 0.2
    """Margin of the two hinge losses."""
    include_diagonal: bool = True
    """Power hinge: count the positive pair among its negatives, as the paper's code does."""
    temperature: TemperatureConfig = TemperatureConfig()
    """Temperature of the contrastive losses: scores are divided by it before the softmax."""
    own_temperature: bool = False
    """Give the late interaction a temperature for itself. False: it shares ITC's. Only with
    ``late_scale: mean``; sums have none."""
    share_positives: bool = True
    """Treat every pair that matches by id, equal title or equal image as a positive. False: only
    the sampled pairs are positives."""
