"""The sections of the training loop: distillation, length, optimizer, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from bagformer_cli.config.section import NonNegative, Positive, Section, Share


class DistillConfig(Section):
    """Distillation: a teacher's score matrix trains the student's scorer."""

    weight: NonNegative = 1.0
    """Weight of the distillation loss. 0: off."""
    teacher: str | None = None
    """Model folder of the frozen teacher. Null: the model's ``alignment`` scorer teaches."""
    scorer: Literal["fast", "slow"] = "fast"
    """Scorer of the teacher: its vectors (fast) or its cross-encoder (slow)."""
    loss: Literal["cross_entropy", "mse", "ranknet"] = "cross_entropy"
    """``cross_entropy``: between the softmaxes of teacher and student (Inflate and Shrink,
    ListNet). ``mse``: between the scores (ALADIN). ``ranknet``: the logistic loss of every two
    candidates in the teacher's order (RankNet). ALADIN's ``ordinal``, a hinge between third
    neighbours, is another one."""
    learned_scale: bool = True
    """For ``mse``: multiply the student's scores by a learned factor and add a learned offset; both
    start at 0.5 (ALADIN). False: compare the scores as they are."""
    teacher_temperature: Annotated[float, Field(gt=0)] = 0.0625
    """The teacher's scores are divided by it before the softmax."""
    student_temperature: Annotated[float, Field(gt=0)] = 0.0625
    """The student's scores are divided by it before the softmax."""
    hard_loss_weight: NonNegative = 0.0
    """Weight of the student scorer's loss on labels; replaces its weight in ``objectives``."""
    activate_distillation_after: NonNegative = 0.0
    """Epochs of training on labels alone before distillation begins."""
    start_from_teacher: bool = True
    """Initialize the student with the teacher's weights where names and shapes match."""
    candidates: Positive | None = None
    """Images compared for each title: its match and the student's best others in the batch.
    Null: all images of the batch."""
    mined: bool = False
    """Build batches from groups of ``candidates`` images: one, and the student's nearest images
    to its title in the whole training set."""

    @field_validator("loss", mode="before")
    @classmethod
    def _old_name(cls, value: object) -> object:
        """Read the name that stored configurations have for ``ranknet``."""
        return "ranknet" if value == "ordinal" else value


class EarlyStoppingConfig(Section):
    """Early stopping: end a training when validation recall no longer rises."""

    patience: Positive = 3
    """Evaluations in a row without a gain after which training stops; the one before the first
    step is what the first gain is compared with."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Smallest rise of mean recall, text to image, that counts as a gain, in percentage points."""


class LoraConfig(Section):
    """LoRA: small trained matrices next to linear layers, which are frozen themselves."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Width of the two matrices of a layer. Larger values can change the model more."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The product of the two matrices is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the inputs of the matrices."""
    towers: Literal["both", "text", "image"] = "both"
    """Towers with adapters; all other weights of such a tower are frozen. The other tower is
    trained in full (``frozen_layers`` freezes it). Projections and cross-encoder are trained."""
    targets: list[str] | None = None
    """Names of linear layers that get an adapter: the end of a dotted name, with ``*`` as in
    ``blocks.1?.attn.*``. Null: query and value of each attention (``query``, ``value`` of a BERT;
    ``qkv``, ``q_proj``, ``v_proj`` of a timm backbone)."""


class TrainingConfig(Section):
    """The training loop: length, batches, optimizer, precision, evaluation."""

    epochs: Positive = 6
    """Passes over the training images."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps. The length of the schedule does not change."""
    schedule_steps: Positive | None = None
    """Length of the learning-rate schedule in steps. Null: the steps of all epochs."""
    batch_size: Annotated[int, Field(ge=2, le=2**24)] = 32
    """Images in one contrastive score matrix, over all processes; each process takes an equal
    part. Larger batches have more negatives and use more memory."""
    micro_batch_size: Positive | None = None
    """Images encoded per forward pass (gradient caching). Smaller values use less memory and do
    not change the gradients of contrastive losses. Null: the whole batch."""
    processes: Positive | None = None
    """Required number of processes (torchrun). Null: any number."""
    accumulate: Positive = 1
    """Batches whose gradients are summed for one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Highest learning rate of AdamW, after the warm-up."""
    min_learning_rate: NonNegative = 0.0
    """Learning rate at the end of the cosine."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: ``cosine`` decay to ``min_learning_rate``, or one ``step`` down by
    ``decay_factor`` at ``decay_at``."""
    decay_at: Share = 0.5
    """Position of the step, as a share of the schedule (0.5: epoch 20 of 40)."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The learning rate after the step, as a share of that before."""
    lora: LoraConfig | None = None
    """Train LoRA adapters instead of the towers' weights: a small share of the gradients and of
    AdamW's moments. Needs ``peft``. Null: train the weights."""
    encode_frozen_once: bool = False
    """Encode all titles and images once with a tower that is frozen, and keep its outputs in
    memory, instead of encoding at every step. Training gives the same results, many times faster.
    The image tower needs ``data.augment: null``, the text tower ``text.dropout: 0``. Memory: 4
    bytes x width for each title and image, and for each of their tokens and patches if the model
    reads them. false: encode at every step."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of a layer as a share of that of the layer above it, in both towers (ELECTRA,
    BEiT): lr x layer_decay^d, where d is 1 for the top layer and largest for the embeddings.
    Projections, cross-encoder and code tokens have the full rate. Smaller values keep more of the
    pretrained weights; usual are 0.65 to 0.9. 1: one rate for all."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Exponential moving average of the weights: the share of its value that the average keeps at
    each step, so that it covers about 1 / (1 - ema) steps (0.999: 1000). Recall is measured with
    the average, and ``best/`` holds it; the weights themselves are trained. Null: no
    average."""
    weight_decay: NonNegative = 0.02
    """Weight decay of AdamW; biases and norms have none."""
    warmup_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Steps in which the learning rate rises linearly from 0."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Maximum norm of the gradient. Null: no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 on devices that support it, otherwise fp32."""
    compile: bool = False
    """Compile the transformer layers with ``torch.compile``: less memory traffic on a GPU, and a
    minute or more of waiting at the start. Convolutions and evaluation are not compiled."""
    deterministic: bool = False
    """On a GPU, use torch's deterministic algorithms, which add in a fixed order, so that equal
    runs, and a resumed one and an unbroken one, get the same bits. Slower. A CPU always does."""
    evaluate_every: Positive | None = None
    """Steps between evaluations on the validation split. Null: once per epoch."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop when recall no longer rises. Null: train for all epochs."""
    save_every: Positive | None = None
    """Steps between saves of ``last/``. Null: at every evaluation."""
    log_every: Positive = 10
    """Steps between lines of ``metrics.jsonl``."""
    loggers: list[Literal["wandb", "mlflow"]] = []
    """Also send the figures to Weights & Biases or MLflow, if they are installed. Environment
    variables such as WANDB_MODE and MLFLOW_TRACKING_URI decide where; by default, files in the run
    folder."""
    checkpoint: str | None = None
    """Model folder whose weights to start from, where names and shapes match."""


class EvaluationConfig(Section):
    """Evaluation: batch size, rerank and merged score."""

    batch_size: Positive = 64
    """Images or titles encoded per forward pass. Does not change results."""
    candidates: Annotated[int, Field(ge=0, le=2**31 - 1)] = 256
    """Best K of the recall stage that the cross-encoder reranks. 0: no rerank."""
    beta: NonNegative = 1.0
    """Merged score = cross-encoder score + beta x recall-stage score."""
    merge: Literal["sum", "mean"] = "sum"
    """Recall-stage score in the merged score: the ``sum`` over the query's vectors, or their
    ``mean``, so that beta weighs long and short queries, titles and images alike."""
    slow_betas: dict[str, NonNegative] = {}
    """beta for the cross-encoders of other model folders, by the first 16 digits of their
    weights' SHA-256, as ``xmr eval --slow … --tune-beta`` chose it."""
