"""The whole configuration, and the rules about settings that exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from bagformer_cli.config.schema import (
    Compat,
    DataConfig,
    ImageConfig,
    ModelConfig,
    ObjectivesConfig,
    TextConfig,
)
from bagformer_cli.config.section import Section
from bagformer_cli.config.training import DistillConfig, EvaluationConfig, TrainingConfig
from bagformer_cli.messages import tr


class RunConfig(Section):
    """Everything that determines a run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Random seed. Runs with the same seed and settings on one machine are equal."""
    compat: Compat | None = None
    """Reproduce the published BagFormer code, for its weights only: its training script
    (``bagformer``) or the example in its README (``bagformer-readme``)."""
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    image: ImageConfig = ImageConfig()
    model: ModelConfig = ModelConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    distill: DistillConfig | None = None
    chain: list[str] = Field(default_factory=list)
    """Modes to train one after the other; each stage is taught by the one before."""
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_rules(self) -> RunConfig:
        for broken in broken_rules(self):
            raise ValueError(broken)
        return self


def broken_rules(config: RunConfig) -> Iterator[str]:
    """Yield one sentence for every rule that the settings break, in a fixed order."""
    yield from _objectives_without_their_model(config)
    yield from _nothing_to_train(config)
    yield from _model_conflicts(config)
    yield from _two_starts(config)
    yield from _frozen_towers_with_adapters(config)
    if config.text.width % config.text.heads:
        yield tr("text.width must be a multiple of text.heads")
    if config.text.max_tokens > config.text.options.get("max_position_embeddings", 512):
        yield tr("text.max_tokens is larger than text.options.max_position_embeddings")


def _objectives_without_their_model(config: RunConfig) -> Iterator[str]:
    """Objectives that need a part of the model which the settings leave out."""
    weights, model = config.objectives, config.model
    cross = model.cross
    early = model.bag_fusion == "early"
    joint = cross is not None and cross.fusion == "joint"
    if (weights.mlm > 0 or weights.mfm > 0) and cross is None:
        yield tr("objectives.mlm and objectives.mfm require model.cross")
    if (weights.itm > 0 or weights.caption > 0) and cross is None:
        yield tr("objectives.itm and objectives.caption require model.cross")
    for weight, kind, name in (
        (weights.itm, "matching", "itm"),
        (weights.caption, "captioner", "caption"),
        (weights.mlm, "matching", "mlm"),
        (weights.mfm, "matching", "mfm"),
    ):
        if weight > 0 and cross is not None and cross.kind != kind:
            yield tr("objectives.{name} requires model.cross.kind: {kind}", name=name, kind=kind)
    if weights.mfm > 0 and not joint:
        yield tr("objectives.mfm requires model.cross.fusion: joint")
    if weights.mlm > 0 and early and not joint:
        yield tr("objectives.mlm predicts tokens, so it requires model.bag_fusion: late")
    if config.text.encoder == "words" and (joint or weights.mlm > 0):
        yield tr("text.encoder: words has no layers for objectives.mlm or cross.fusion: joint")
    if weights.momentum is not None and (weights.loss != "nce" or not weights.share_positives):
        yield tr("objectives.momentum requires objectives.loss: nce and share_positives: true")


def _nothing_to_train(config: RunConfig) -> Iterator[str]:
    """Settings under which no objective, or no weight, would be trained."""
    weights, model, distill = config.objectives, config.model, config.distill
    distilled = distill is not None and distill.weight > 0
    labelled = [weights.itc, weights.late_interaction, weights.itm, weights.caption]
    labelled += [weights.mlm, weights.mfm]
    if distill is not None and distilled:
        labelled.append(distill.hard_loss_weight)
    if not any(labelled) and not distilled:
        yield tr("every weight in objectives is 0: there is nothing to train")
    if not any(labelled) and distill is not None and distill.activate_distillation_after:
        yield tr("distill.activate_distillation_after must be 0 when no objective trains on labels")
    if distill is not None and distill.mined and distill.candidates is None:
        yield tr("distill.mined requires distill.candidates")
    if distill is not None and distill.mined and config.data.hard_negatives is not None:
        yield tr("distill.mined and data.hard_negatives exclude each other: both fill the batches")
    if model.freeze_towers and model.head is None and model.cross is None:
        yield tr("model.freeze_towers leaves nothing to train: set model.head or model.cross")


def _frozen_towers_with_adapters(config: RunConfig) -> Iterator[str]:
    """Adapters in towers that are not trained."""
    if config.model.freeze_towers and config.training.lora is not None:
        yield tr("training.lora trains the towers, which model.freeze_towers freezes")


def _model_conflicts(config: RunConfig) -> Iterator[str]:
    """Parts of the model that exclude each other."""
    model, text = config.model, config.text
    early = model.bag_fusion == "early"
    if early and "bagwise" not in (model.interaction, model.alignment) and config.compat is None:
        yield tr("model.bag_fusion: early requires model.interaction: bagwise")
    if model.alignment is not None and not model.single:
        yield tr("model.alignment requires model.interaction: cls")
    if text.encoder == "words" and (model.codes or model.shared or early):
        yield tr("text.encoder: words excludes model.codes, model.shared and bag_fusion: early")
    if model.cross is not None and model.cross.kind == "captioner" and not text.add_sep:
        yield tr("the captioner requires text.add_sep: it reads backwards from [SEP]")
    if model.cross is not None and model.cross.token_maxsim and config.objectives.itm > 0:
        if model.cross.fusion != "cross":
            yield tr("model.cross.token_maxsim requires model.cross.fusion: cross")
        if model.late is None or config.compat is not None:
            yield tr("model.cross.token_maxsim requires a late interaction, and compat: null")


def _two_starts(config: RunConfig) -> Iterator[str]:
    """Towers of a Chinese-CLIP together with what excludes them."""
    text, image = config.text, config.image
    if text.chinese_clip is not None:
        if text.pretrained is not None:
            yield tr("text.chinese_clip and text.pretrained exclude each other: set one to null")
        if text.encoder == "words" or config.compat is not None:
            yield tr("text.chinese_clip requires text.encoder: bert and compat: null")
    if image.conv_stem and (image.pretrained is not False or image.chinese_clip is not None):
        yield tr("image.conv_stem has no pretrained weights: set image.pretrained: false")
    if image.chinese_clip is not None:
        if image.pretrained is not False:
            yield tr("image.chinese_clip requires image.pretrained: false")
        if image.regions is not None or config.model.shared or config.compat is not None:
            yield tr("image.chinese_clip excludes image.regions, model.shared and compat")
