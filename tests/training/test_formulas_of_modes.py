"""What each mode trains equals the formula of its paper, written out over literal vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.progress import SILENT
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.encoded_batch import EncodedBatch
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import make_trainer, resume_config, resume_run, start_run
from bagformer_cli.vectors.multi_vectors import MultiVectors
from tests.support.datasets import write_split
from tests.support.small_run import TINY

SMALL = [*TINY, "model.cross=null", "objectives.itm=0", "training.warmup_steps=0"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("set")
    names = ["红色", "绿色碎花", "蓝色", "黄色宽松", "黑色", "白色", "紫色加绒加厚", "青色"]
    queries = [(n, f"{name}连衣裙", (10 + n,)) for n, name in enumerate(names)]
    for split in ("train", "valid"):
        found = write_split(folder, split, queries)
    return ensure_store(found, build_titles(load_config("demo")), workers=1)


def settings(mode: str, *overrides: str) -> RunConfig:
    codes = ["model.codes=3"] if mode == "inflate" else []
    return load_config("demo", [*SMALL, *codes, *overrides], mode)


def trained_loss(
    config: RunConfig, store: Store, folder: Path
) -> tuple[RetrievalModel, EncodedBatch, Tensor]:
    """Return the model, one encoded batch, and the loss that the mode trains on it."""
    model = new_model(config).eval()
    trainer = make_trainer(model, config, store, folder, False, SINGLE_PROCESS, SILENT)
    encoded = trainer.task.encode(trainer.batches.batch(0), 1000.0)
    (objective,) = trainer.task.objectives
    return model, encoded, objective.loss(encoded)  # type: ignore[call-arg]


def literal_scores(
    texts: Sequence[Tensor], images: Sequence[Tensor], mean: bool
) -> tuple[Tensor, Tensor]:
    """Score every title with every image: max over the image's vectors, sum over the title's.

    Returns:
        [Q, N], and [N, Q] of BagFormer: max over the title's vectors, sum over the image's.
    """
    by_text, by_image = [], []
    for text in texts:
        for image in images:
            best_patch = [max(t @ v for v in image) for t in text]
            best_token = [max(t @ v for t in text) for v in image]
            by_text.append(sum(best_patch) / (len(text) if mean else 1))
            by_image.append(sum(best_token) / (len(image) if mean else 1))
    shape = len(texts), len(images)
    return torch.stack(by_text).view(shape), torch.stack(by_image).view(shape).T


def literal_hinge(scores: Tensor, margin: float) -> Tensor:
    """1/B Σ_i (ε + Σ_j [m + S_ij - S_ii]₊⁸)^⅛, j = i included as in the paper's code."""
    rows = []
    for i in range(len(scores)):
        terms = [(margin + s - scores[i, i]).clamp_min(0) ** 8 for s in scores[i]]
        rows.append((1e-5 + sum(terms)) ** (1 / 8))
    return torch.stack(rows).mean()


def literal_distillation(teacher: Tensor, student: Tensor, of_teacher: float) -> Tensor:
    """-1/B Σ_ij softmax(T_i / τ_T)_j log softmax(16 S_i)_j."""
    soft = (teacher / of_teacher).exp() / (teacher / of_teacher).exp().sum(1, keepdim=True)
    log = 16 * student - (16 * student).exp().sum(1, keepdim=True).log()
    return -(soft * log).sum(1).mean()


def vectors(batch: EncodedBatch) -> tuple[list[Tensor], list[Tensor]]:
    """Titles and images of the batch, each title next to its own image."""
    texts, images = batch.texts.vectors.to_list(), batch.images.vectors.to_list()
    own = batch.batch.own.tolist()
    return texts, [images[n] for n in own]


def same_with_gradients(ours: Tensor, literal: Tensor, model: RetrievalModel) -> None:
    torch.testing.assert_close(ours, literal, rtol=1e-4, atol=1e-5)
    weights = [model.dual.text_proj.weight, model.dual.vision_proj.weight]
    mine = torch.autograd.grad(ours, weights, retain_graph=True)
    theirs = torch.autograd.grad(literal, weights)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


# ----------------------------------------------------------------------------- Inflate and Shrink


@pytest.mark.parametrize("mode", ["base", "inflate"])
@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_base_and_inflate_hinge_one_matrix_in_both_directions(
    store: Store, tmp_path: Path, mode: str, scale: str
) -> None:
    config = settings(mode, f"objectives.late_scale={scale}")
    model, batch, loss = trained_loss(config, store, tmp_path)
    one, _ = literal_scores(*vectors(batch), scale == "mean")
    same_with_gradients(loss, literal_hinge(one, 0.6) + literal_hinge(one.T, 0.6), model)


@pytest.mark.parametrize("mode", ["base", "inflate"])
def test_two_matrices_can_be_chosen(store: Store, tmp_path: Path, mode: str) -> None:
    config = settings(mode, "model.pooling=each")
    model, batch, loss = trained_loss(config, store, tmp_path)
    t2i, i2t = literal_scores(*vectors(batch), mean=True)
    same_with_gradients(loss, literal_hinge(t2i, 0.6) + literal_hinge(i2t, 0.6), model)


@pytest.mark.parametrize(
    ("student", "teacher", "of_teacher"),
    [("shrinktobase", "inflate", 1 / 16), ("shrinktofast", "base", 1 / 2)],
)
def test_a_student_learns_one_matrix_of_its_teacher_in_both_directions(
    store: Store, tmp_path: Path, student: str, teacher: str, of_teacher: float
) -> None:
    taught_by = new_model(settings(teacher, "seed=1")).eval()
    save_model(taught_by, tmp_path / "teacher")
    config = settings(
        student, f"distill.teacher={tmp_path / 'teacher'}", "distill.start_from_teacher=false"
    )
    model, batch, loss = trained_loss(config, store, tmp_path / "run")
    with torch.no_grad():
        texts = taught_by.encode_texts(batch.batch.text).vectors.to_list()
        images = taught_by.encode_images(batch.batch.pixels()).vectors.to_list()
        of_teacher_scores, _ = literal_scores(texts, images, mean=True)
    of_student, _ = literal_scores(
        batch.texts.vectors.to_list(), batch.images.vectors.to_list(), mean=True
    )
    rows = literal_distillation(of_teacher_scores, of_student, of_teacher)
    columns = literal_distillation(of_teacher_scores.T, of_student.T, of_teacher)
    same_with_gradients(loss, (rows + columns) / 2, model)


@pytest.mark.parametrize("config", ["demo_shared", "inflate_shrink"])
@pytest.mark.parametrize("mode", ["base", "inflate", "shrinktobase"])
def test_one_matrix_is_the_default_of_inflate_and_shrink(config: str, mode: str) -> None:
    assert load_config(config, mode=mode).model.pooling == "text"
    assert load_config("muge_bagformer").model.pooling == "each"


def test_sums_prefer_long_titles_from_an_image_and_means_do_not() -> None:
    """The reason for ``late_scale: mean``: what a title repeats must not make it rank higher."""
    torch.manual_seed(0)
    images = [torch.nn.functional.normalize(torch.rand(4, 8), dim=1) for _ in range(3)]
    right = images[0][:1]
    vague = torch.nn.functional.normalize(torch.rand(3, 8), dim=1)
    titles = MultiVectors.from_list([right, vague, torch.cat([vague, vague])])
    pictures = MultiVectors.from_list(images)
    _, sums = pooled_maxsim(titles, pictures, Scoring("text"))
    _, means = pooled_maxsim(titles, pictures, Scoring("text", means=True))
    assert sums.argmax(dim=1).tolist() == [2, 2, 2]  # the longest title, whatever the image
    torch.testing.assert_close(2 * sums[:, 1], sums[:, 2])
    torch.testing.assert_close(means[:, 1], means[:, 2])
    assert int(means[0].argmax()) == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [("demo_shared", 0.3), ("demo_regions", 0.3), ("inflate_shrink", 1.0), ("aladin", 1.0)],
)
def test_the_gain_of_code_tokens_is_a_setting(config: str, expected: float) -> None:
    assert load_config(config, mode="inflate").model.code_gain == expected


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_code_tokens_are_the_norm_of_an_embedding_times_the_gain(gain: float) -> None:
    model = new_model(settings("inflate", f"model.code_gain={gain}"))
    for codes in (model.dual.text_codes, model.dual.image_codes):
        assert codes is not None
        rows = codes.embedding.weight
        spread = rows.var(dim=1, unbiased=False, keepdim=True)
        literal = gain * (rows - rows.mean(1, keepdim=True)) / (spread + 1e-5).sqrt()
        torch.testing.assert_close(codes(), literal, rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------- ALADIN


def aladin(*overrides: str) -> RunConfig:
    return settings(
        "alignment_and_matching_distill", "model.head.feed_forward=32", "model.head.dropout=0",
        "distill.activate_distillation_after=0", *overrides,
    )  # fmt: skip


def test_mse_learns_a_factor_and_an_offset_of_the_students_scores(
    store: Store, tmp_path: Path
) -> None:
    """ALADIN: mean (w S_student + b - S_teacher)², both start at one half."""
    config = aladin(
        "distill.loss=mse", "distill.student_temperature=1", "objectives.late_interaction=0"
    )
    model, batch, loss = trained_loss(config, store, tmp_path)
    line = model.distill_line
    assert line is not None
    assert line.tolist() == [0.5, 0.5]
    student = batch.texts.cls @ batch.images.cls.T
    assert batch.texts.late is not None
    assert batch.images.late is not None
    teacher, _ = literal_scores(batch.texts.late.to_list(), batch.images.late.to_list(), mean=False)
    literal = ((0.5 * student + 0.5 - teacher.detach()) ** 2).mean()
    torch.testing.assert_close(loss, literal, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss, [line])
    error = 0.5 * student + 0.5 - teacher
    expected = torch.stack([(2 * error * student).mean(), (2 * error).mean()])
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_the_factor_and_the_offset_are_trained_saved_and_resumed(
    store: Store, tmp_path: Path
) -> None:
    items = ["distill.loss=mse", "training.schedule_steps=4"]
    for name, steps in (("whole", 4), ("broken", 3)):
        config = aladin(*items, f"training.max_steps={steps}")
        start_run(config, store, tmp_path / name, new_model(config))
    config = resume_config(tmp_path / "broken", ["training.max_steps=4"])
    resume_run(config, store, tmp_path / "broken")
    ours, theirs = (
        load_file(tmp_path / name / "last/model.safetensors")["distill_line"]
        for name in ("broken", "whole")
    )
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, torch.tensor([0.5, 0.5]))
    assert load_model(tmp_path / "whole/best").distill_line is not None


def test_without_a_learned_scale_there_is_none() -> None:
    assert new_model(aladin("distill.loss=mse", "distill.learned_scale=false")).distill_line is None
    assert new_model(aladin()).distill_line is None


def test_models_from_before_the_learned_scale_are_read(store: Store, tmp_path: Path) -> None:
    config = aladin("distill.loss=mse", "distill.learned_scale=false")
    save_model(new_model(config), tmp_path / "old")
    path = tmp_path / "old/config.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    left = [line for line in lines if "learned_scale" not in line and "code_gain" not in line]
    assert len(left) == len(lines) - 2
    path.write_text("\n".join(left).replace("loss: mse", "loss: ordinal") + "\n", encoding="utf-8")
    found = load_model(tmp_path / "old").config
    assert found.distill is not None
    assert (found.distill.learned_scale, found.distill.loss) == (False, "ranknet")
    assert found.model.code_gain == 0.3


def test_the_alignment_head_teaches_after_two_epochs() -> None:
    distill = load_config("aladin", mode="alignment_and_matching_distill").distill
    assert distill is not None
    assert distill.activate_distillation_after == 2
