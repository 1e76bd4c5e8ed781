"""All sections together, and which of their settings do not go together."""

from __future__ import annotations

from pydantic import Field, model_validator

from bagformer_cli.config.schema import (
    Compat,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    ImageConfig,
    ModelConfig,
    ObjectivesConfig,
    Section,
    TextConfig,
    TrainingConfig,
)
from bagformer_cli.messages import tr


class RunConfig(Section):
    """Everything that determines a run."""

    seed: int = 0
    compat: Compat | None = None
    """Reproduce the habits of the published BagFormer code (for its weights only): of its training
    script, or of the example in its README."""
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    image: ImageConfig = ImageConfig()
    model: ModelConfig = ModelConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    distill: DistillConfig | None = None
    chain: list[str] = Field(default_factory=list)
    """Modes that are trained one after the other, each taught by the one before."""
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        weights, model, distill = self.objectives, self.model, self.distill
        if (weights.mlm > 0 or weights.mfm > 0) and model.cross is None:
            raise ValueError(tr("objectives.mlm and objectives.mfm need model.cross"))
        if (weights.itm > 0 or weights.caption > 0) and model.cross is None:
            raise ValueError(
                tr("objectives.itm is above 0, but model.cross is null: there is no slow scorer")
            )
        for weight, kind, name in (
            (weights.itm, "matching", "itm"),
            (weights.caption, "captioner", "caption"),
            (weights.mlm, "matching", "mlm"),
            (weights.mfm, "matching", "mfm"),
        ):
            if weight > 0 and model.cross is not None and model.cross.kind != kind:
                raise ValueError(
                    tr("objectives.{name} needs model.cross.kind: {kind}", name=name, kind=kind)
                )
        taught = distill is not None and distill.weight > 0
        labels = [weights.itc, weights.late_interaction, weights.itm, weights.caption]
        labels += [weights.mlm, weights.mfm]
        if taught and distill is not None:
            labels.append(distill.hard_loss_weight)
        if not any(labels) and not taught:
            raise ValueError(tr("every weight in objectives is 0: there is nothing to train"))
        if not any(labels) and distill is not None and distill.activate_distillation_after:
            raise ValueError(
                tr("nothing is trained before distill.activate_distillation_after epochs are over")
            )
        if distill is not None and distill.mined and distill.candidates is None:
            raise ValueError(tr("distill.mined needs distill.candidates"))
        early = model.bag_fusion == "early"
        if early and "bagwise" not in (model.interaction, model.alignment) and self.compat is None:
            raise ValueError(tr("model.bag_fusion: early needs model.interaction: bagwise"))
        if model.alignment is not None and not model.single:
            raise ValueError(tr("model.alignment stands beside model.interaction: cls"))
        if model.freeze_towers and model.head is None and model.cross is None:
            raise ValueError(tr("model.freeze_towers leaves nothing to train: set model.head"))
        if self.text.encoder == "words" and (model.codes or model.shared or early):
            raise ValueError(tr("text.encoder: words has no layers that codes could go through"))
        if model.cross is not None and model.cross.kind == "captioner" and not self.text.add_sep:
            raise ValueError(tr("the captioner needs text.add_sep: it reads backwards from [SEP]"))
        joint = model.cross is not None and model.cross.fusion == "joint"
        if weights.mfm > 0 and not joint:
            raise ValueError(tr("objectives.mfm needs model.cross.fusion: joint"))
        if weights.mlm > 0 and early and not joint:
            raise ValueError(tr("objectives.mlm needs model.bag_fusion: late: it tells tokens"))
        if self.text.encoder == "words" and (joint or weights.mlm > 0):
            raise ValueError(tr("text.encoder: words cannot tell masked tokens or read images"))
        if weights.momentum is not None and (weights.loss != "nce" or not weights.share_positives):
            raise ValueError(
                tr("objectives.momentum needs objectives.loss: nce and share_positives: true")
            )
        if self.text.width % self.text.heads:
            raise ValueError(tr("text.width must be a multiple of text.heads"))
        return self
