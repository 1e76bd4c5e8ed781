"""The sections of a configuration: what can be set, its defaults, and which values are possible."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bagformer_cli.messages import tr

Interaction = Literal["cls", "tokenwise", "bagwise"]
Pooling = Literal["each", "text", "image", "both", "mean"]
Compat = Literal["bagformer", "bagformer-readme"]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are checked when set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AugmentConfig(Section):
    """How training images are varied (BagFormer's and ALBEF's settings by default)."""

    crop_scale: tuple[Share, Share] = (0.5, 1.0)
    """Share of the picture's area that a random resized crop keeps: least, most."""
    flip: bool = True
    """Mirror every second image."""
    randaugment: tuple[int, int] | None = (2, 7)
    """RandAugment's number of operations and magnitude (0-10); null: none."""


class DataConfig(Section):
    """What is trained on."""

    dataset: str = "demo"
    """A folder in MUGE form, or ``demo``, or ``muge``."""
    augment: AugmentConfig | None = AugmentConfig()
    titles_per_image: Positive = 1
    """Titles that an image brings into its batch; 1: pairs, as in the original. More share the
    cost of encoding the image."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Threads that decode images ahead of the training step; 0: in the step itself."""
    cache_mb: Annotated[int, Field(ge=0)] = 512
    """Memory for decoded images; a dataset that fits is decoded once."""


class TextConfig(Section):
    """The title's way to vectors: tokens, bags, BERT."""

    tokenizer: str = "builtin"
    """``builtin``, a WordPiece vocab file, a model folder, or a hub name."""
    lexicons: list[str] = ["builtin"]
    """Dictionaries of entities: ``builtin`` or files."""
    max_tokens: Annotated[int, Field(ge=3, le=512)] = 25
    """A title is cut after so many tokens, [CLS] and [SEP] included."""
    add_sep: bool = True
    """Close a title with [SEP], as BERT was trained."""
    pretrained: str | None = None
    """A BERT to start from: a model folder or a hub name. Null: from scratch."""
    layers: Positive = 6
    """Transformer layers of the text encoder (the first so many of a pretrained BERT)."""
    width: Positive = 768
    heads: Positive = 12
    feed_forward: Positive = 3072
    dropout: Share = 0.1
    options: dict[str, Any] = {}
    """What else transformers' ``BertConfig`` takes (``layer_norm_eps``, ``hidden_act`` ...)."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """Embeddings and the first so many layers that stay as they are; 0: all are trained."""
    encoder: Literal["bert", "words"] = "bert"
    """``words``: no BERT, a title is the mean of its word embeddings (Thinking Fast and Slow)."""


class RegionsConfig(Section):
    """Pre-extracted image regions in place of pixels."""

    files: str = "MR_{split}_regions.tsv"
    """TSV files of image id and base64 float array [n, width]; beside the dataset's, or a path."""
    width: Positive = 2048
    maximum: Positive = 32
    """The first so many regions of an image are used."""
    boxes: bool = False
    """Add an embedding of each region's box; else regions have no position."""


class ImageConfig(Section):
    """The image's way to vectors: a timm backbone."""

    backbone: str = "vit_base_patch16_224"
    """A timm model name."""
    pretrained: bool | str = False
    """``true``: timm's weights for that name; a path: a weight file or a folder timm saved."""
    size: Positive = 256
    """Images are scaled to this many pixels a side."""
    options: dict[str, Any] = {}
    """What else ``timm.create_model`` takes (``patch_size``, ``embed_dim``, ``depth`` ...)."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """Patch embedding and the first so many blocks that stay as they are; 0: all are trained."""
    regions: RegionsConfig | None = None
    """Read regions that a detector extracted instead of pixels; the backbone is then not built."""


class CrossConfig(Section):
    """The slow scorer on top of the towers: fusion layers and the matching head."""

    kind: Literal["matching", "captioner"] = "matching"
    """``matching``: fusion encoder and two logits (ITM). ``captioner``: how likely the title is as
    the image's caption, read forwards and backwards."""
    layers: Positive = 6
    """Layers that cross-attend to the image; from a pretrained BERT, those after the text's."""
    fusion: Literal["cross", "joint"] = "cross"
    """Matching: ``cross``: fusion layers attend from the title to the image (ALBEF); ``joint``: the
    text tower's BERT reads [CLS; patches; title] as one (QQ-browser); ``layers`` is unused."""
    logits: Literal[1, 2] = 2
    """Matching: two logits with cross-entropy (ALBEF), or one with binary cross-entropy."""
    finer: Annotated[int, Field(ge=0, le=4)] = 0
    """Captioner: how many times the last feature map is doubled in size and merged with an
    earlier, finer one before the attention sees it."""


class SharedConfig(Section):
    """One BERT for both sides: it also reads the image, as a sequence of cells or regions."""

    cells: Positive = 32
    """A patch grid of more cells is average-pooled to so many (32: 4 x 8) before it."""


class HeadConfig(Section):
    """A transformer shared by both sides whose first position is the one vector (ALADIN)."""

    layers: Positive = 2
    heads: Positive = 4
    feed_forward: Positive = 768
    dropout: Share = 0.1


class ModelConfig(Section):
    """How towers become scores."""

    interaction: Interaction = "bagwise"
    bag_fusion: Literal["early", "late"] = "late"
    """Bags made before (early) or after (late) the text encoder."""
    embed_dim: Positive = 256
    """Length of one vector of a title or an image."""
    keep: Positive | Literal["all"] = "all"
    """Vectors of each side: position 0 and the first so many that follow (of a patch grid so many
    average-pooled cells instead); 1: position 0 alone; all: as the interaction says."""
    codes: Annotated[int, Field(ge=0)] = 0
    """Learned codes appended to each side's input, attended by all and scored like the rest."""
    shared: SharedConfig | None = None
    """Null: each side has its own encoder."""
    pooling: Pooling = "each"
    """How a pair's products become its score: ``each``: max over the other side, sum over one's
    own, in each direction; ``text``: max over the image, sum over the text, in both; ``image``:
    max over the text, sum over the image, in both; ``both``: their sum; ``mean``: of all
    products."""
    image_first: bool = True
    """Whether the image's first position (class token, first region) is among its vectors."""
    head: HeadConfig | None = None
    """What makes a side's one vector; null: position 0 of its encoder."""
    alignment: Literal["tokenwise", "bagwise"] | None = None
    """With ``cls``: a late interaction of the same towers beside it, which can teach it."""
    freeze_towers: bool = False
    """Train the head and the slow scorer alone."""
    cross: CrossConfig | None = CrossConfig()
    """Null: no slow scorer."""
    gradient_checkpointing: bool = False
    """Trade a third more time for the memory of the towers' activations."""

    @property
    def single(self) -> bool:
        """Whether an item's vectors are one vector."""
        return self.interaction == "cls" or self.keep == 1

    @property
    def late(self) -> Interaction | None:
        """The late interaction that is computed: the model's own, or the one beside it."""
        return self.alignment if self.single else self.interaction


class TemperatureConfig(Section):
    """What divides a score before the softmax."""

    initial: Annotated[float, Field(gt=0)] = 0.07
    minimum: Annotated[float, Field(gt=0)] = 0.05
    maximum: Annotated[float, Field(gt=0)] = 0.5
    learned: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureConfig:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(tr("initial must lie between minimum and maximum"))
        return self


class MaskingConfig(Section):
    """What masked modelling (MLM, MFM) hides."""

    tokens: Share = 0.15
    """Share of a title's tokens; of these 80 % become [MASK], 10 % another token, 10 % stay."""
    whole_bags: bool = False
    """Hide all tokens of an entity bag together, in one of the three ways."""
    patches: Share = 0.135
    """Share of an image's patches that are zeroed (0.9 x 15 %)."""


class MomentumConfig(Section):
    """ALBEF's momentum model, queues and soft targets."""

    rate: Share = 0.995
    """What the momentum model keeps of itself at each step."""
    queue: Annotated[int, Field(ge=0)] = 65536
    """Items a side that the contrastive losses meet beside the batch; 0: the batch alone."""
    alpha: Share = 0.4
    """Weight of the momentum model's softmax in the targets of ITC, late interaction and MLM,
    reached step by step over the first epoch."""


class ObjectivesConfig(Section):
    """The weights of the training losses (0: left out) and what they share."""

    itc: NonNegative = 1.0
    """Image-text contrastive loss on one vector each ([CLS], class token)."""
    late_interaction: NonNegative = 1.0
    """Contrastive loss on the MaxSim scores (for ``cls`` it would be ITC again: left out)."""
    itm: NonNegative = 1.0
    """Image-text matching with hard negatives, on the slow scorer."""
    itm_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a batch's pairs that ITM sees; it is the dearest objective by far."""
    late_scale: Literal["sum", "mean"] = "sum"
    """Logits of the late-interaction loss: the plain sums (BagFormer), or means over a side's
    vectors divided by the temperature (FILIP)."""
    itm_negatives: Literal["hard", "shuffled"] = "hard"
    """``hard``: drawn by similarity, one for each title and each image; ``shuffled``: the second
    half of the batch with its images in reverse order (all titles; ``itm_share`` unused)."""
    mlm: NonNegative = 0.0
    """Masked language modelling: hidden tokens of a title, told with the image in sight."""
    mfm: NonNegative = 0.0
    """Masked patches: each one's output picks out its own features (``fusion: joint``)."""
    mfm_temperature: Annotated[float, Field(gt=0)] | None = None
    """Null: plain products; a number: cosines divided by it (0.1)."""
    masking: MaskingConfig = MaskingConfig()
    momentum: MomentumConfig | None = None
    """Soft targets and queues for ITC, late interaction and MLM; null: true labels, the batch."""
    task_sampling: Literal["all", "one"] = "all"
    """Every objective at every step, or one of them, drawn."""
    caption: NonNegative = 0.0
    """Likelihood of the titles under the captioner, read forwards and backwards."""
    loss: Literal["nce", "power_hinge", "triplet"] = "nce"
    """What ITC and late interaction are trained with: softmax over the batch; the power-8
    soft-max hinge (Inflate and Shrink); the hardest negative's hinge (ALADIN)."""
    margin: NonNegative = 0.2
    """Of the hinge losses."""
    include_diagonal: bool = True
    """Power hinge: count the pair itself among its negatives, as the paper's code does (measured
    on the demo set, one seed: docs/log.md)."""
    temperature: TemperatureConfig = TemperatureConfig()
    share_positives: bool = True
    """A pair that matches by id, equal title or equal image is a positive, never a negative."""


class DistillConfig(Section):
    """Teacher scorer to score matrix to student scorer."""

    weight: NonNegative = 1.0
    teacher: str | None = None
    """A model folder, frozen; null: this model's own ``model.alignment``."""
    scorer: Literal["fast", "slow"] = "fast"
    """Which scorer of the teacher teaches."""
    loss: Literal["cross_entropy", "mse", "ordinal"] = "cross_entropy"
    """``cross_entropy``: teacher's softmax against student's (Inflate and Shrink, ListNet);
    ``mse``: of the scores; ``ordinal``: the teacher's order of every two candidates."""
    teacher_temperature: Annotated[float, Field(gt=0)] = 0.0625
    student_temperature: Annotated[float, Field(gt=0)] = 0.0625
    hard_loss_weight: NonNegative = 0.0
    """Weight of the student scorer's own loss, in place of that in ``objectives``."""
    activate_distillation_after: NonNegative = 0.0
    """Epochs before the teacher is listened to."""
    start_from_teacher: bool = True
    """Begin with the teacher's weights where names and shapes fit."""
    candidates: Positive | None = None
    """Images of the batch that teacher and student compare for a title: its own and the student's
    best others; null: all."""
    mined: bool = False
    """Batches are made of ``candidates`` images each: one, and those that the student finds
    nearest to its title in the whole training set."""


class TrainingConfig(Section):
    """The one loop."""

    epochs: Positive = 6
    max_steps: Positive | None = None
    """End after so many optimizer steps; the schedule keeps its length (see ``schedule_steps``)."""
    schedule_steps: Positive | None = None
    """Length of the learning-rate schedule in steps; null: that of all epochs."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images, each with its title or titles, whose scores meet in one contrastive matrix; of all
    processes together, each of which takes an equal part."""
    micro_batch_size: Positive | None = None
    """Images that a process encodes at a time; the contrastive losses still see the whole batch,
    with the same gradients (gradient caching). Null: all at once."""
    processes: Positive | None = None
    """Refuse to train with more or fewer processes (torchrun); null: as many as there are."""
    accumulate: Positive = 1
    """Batches whose gradients are added up for one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    min_learning_rate: NonNegative = 0.0
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: half a cosine down, or ``decay_factor`` from ``decay_at`` on."""
    decay_at: Share = 0.5
    """Share of the schedule (0.5: epoch 20 of 40)."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    weight_decay: NonNegative = 0.02
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients together; null: not clipped."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 where the accelerator has it, else fp32."""
    compile: bool = False
    """``torch.compile`` the towers."""
    evaluate_every: Positive | None = None
    """Steps between recalls on validation; null: once an epoch."""
    save_every: Positive | None = None
    """Steps between saves of ``last/``; null: at every evaluation."""
    log_every: Positive = 10
    checkpoint: str | None = None
    """A model folder whose weights to start from, where names and shapes fit."""


class EvaluationConfig(Section):
    """How recall is measured."""

    batch_size: Positive = 64
    candidates: Annotated[int, Field(ge=0)] = 256
    """Best K of the recall stage that the slow scorer sees; 0: no rerank."""
    beta: NonNegative = 1.0
    """Merged score = slow score + beta x fast score."""
    slow_betas: dict[str, NonNegative] = {}
    """The same for slow scorers of other model folders (first 16 digits of their weights'
    SHA-256), as ``xmr eval --slow ... --tune-beta`` chose it."""
