"""Pretraining: soft targets and queues, ITM, masked modelling; whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bagformer_cli.config import load_config
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.store.store import Store
from bagformer_cli.encoders.states import States
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.objectives import Objective
from bagformer_cli.training.run import resume_config, resume_run, start_run
from bagformer_cli.training.task import RetrievalTask
from tests.support.small_pretraining import batches_of, coloured_things, made, settings
from tests.support.small_run import TINY, losses, weights


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return coloured_things(tmp_path_factory.mktemp("pairs"))


def objective_of(task: RetrievalTask, name: str) -> Objective:
    return next(objective for objective in task.objectives if objective.name == name)


@pytest.mark.parametrize("scorer", ["cls", "late"])
def test_the_loss_with_a_queue_equals_its_formula(store: Store, scorer: str) -> None:
    weight = "itc: 1.0, late_interaction: 0.0" if scorer == "cls" else "itc: 0.0"
    task, batches = made(
        store, f"objectives={{{weight}, itm: 0.0, momentum: {{queue: 24, alpha: 0.5}}}}"
    )
    model = task.model.eval()
    torch.manual_seed(0)
    assert task.momentum is not None
    for parameter in task.momentum.model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    first, second = batches.batch(0), batches.batch(1)
    task(first, 0.5)

    def vectors(which: RetrievalModel, batch: Batch) -> list[list[Tensor]]:
        sides = which.encode_texts(batch.text), which.encode_images(batch.pixels())
        if scorer == "cls":
            return [[row[None] for row in side.cls] for side in sides]
        return [side.late.to_list() for side in sides]  # type: ignore[union-attr]

    def score(one: Tensor, other: Tensor) -> Tensor:
        total = (one @ other.T).max(dim=1).values.sum()
        return total if scorer == "cls" else total / (len(one) if TO_MEAN else 1)

    TO_MEAN = task.model.config.objectives.late_scale == "mean"
    match = task.encode(second, 0.5).match
    texts, images = vectors(model, second)
    soft = [vectors(task.momentum.model, batch) for batch in (second, first)]
    every = [[*soft[0][side], *soft[1][side]] for side in (0, 1)]
    groups = [
        torch.cat([second.text_groups, first.text_groups]),
        torch.cat([second.image_groups, first.image_groups]),
    ]
    plain = scorer == "late" and not TO_MEAN
    temperature = 1.0 if plain else float(model.temperature.detach())
    literal = []
    for side, (own, group) in enumerate(
        ((texts, second.text_groups), (images, second.image_groups))
    ):
        for row, vector in enumerate(own):
            other = groups[1 - side]
            wanted = []
            for candidate in other:
                pair = (group[row], candidate) if side == 0 else (candidate, group[row])
                wanted.append(float(match(pair[0][None], pair[1][None])))
            mine = torch.stack([score(vector, c) for c in every[1 - side]]) / temperature
            theirs = torch.stack([score(soft[0][side][row], c) for c in every[1 - side]])
            belief = torch.softmax(theirs / temperature, 0)
            target = 0.25 * belief + 0.75 * torch.tensor(wanted) / sum(wanted)
            literal.append(-(target * torch.log_softmax(mine, 0)).sum())
    found = task(second, 0.5)
    torch.testing.assert_close(
        found.total.detach(), torch.stack(literal).mean().detach(), rtol=1e-4, atol=1e-5
    )


class Watched(torch.nn.Module):
    """Keeps the inputs of the matching head."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head, self.asked = head, []

    def forward(self, texts: States, images: States, rows: Tensor) -> Tensor:
        self.asked.append((texts, images.select(rows)))
        logits: Tensor = self.head(texts, images, rows)
        assert torch.allclose(logits, self.head(texts, images.select(rows)), atol=1e-6)
        return logits


@pytest.mark.parametrize("negatives", ["hard", "random", "shuffled"])
def test_masks_are_reordered_with_their_states(store: Store, negatives: str) -> None:
    task, batches = made(
        store,
        "model.cross={fusion: joint, logits: 1}",
        f"objectives={{itc: 0.0, late_interaction: 0.0, itm: 1.0, itm_negatives: {negatives}}}",
    )
    batch = batches.batch(0)
    encoded = task.encode(batch, 0.0)
    images = encoded.images.states.values
    encoded.images.states = States(images, torch.rand(images.shape[:2]) < 0.7)
    model: Any = task.model
    head = model.cross
    model.cross = watched = Watched(head)
    matching: Any = objective_of(task, "itm_loss")
    torch.manual_seed(0)
    rows, columns, labels = matching.draw_pairs(encoded)
    torch.manual_seed(0)
    matching.loss(encoded, None)
    texts, patches = watched.asked[0]
    assert torch.equal(texts.values, encoded.texts.states.values[rows])
    assert torch.equal(texts.kept, encoded.texts.states.kept[rows])
    assert torch.equal(patches.values, images[columns])
    assert torch.equal(patches.kept, encoded.images.states.kept[columns])
    for row, column, label in zip(rows, columns, labels, strict=True):
        assert bool(batch.positives[row, column]) == bool(label)


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_random_negatives_ignore_what_hard_ones_are_drawn_by(store: Store, negatives: str) -> None:
    """BagFormer's code draws with weights ``ones(B, B)``, diagonal 0: each partner 1 in 15."""
    task, batches = made(
        store,
        f"objectives={{itc: 0.0, late_interaction: 0.0, itm: 1.0, itm_negatives: {negatives}}}",
    )
    encoded = task.encode(batches.batch(0), 0.0)
    with torch.no_grad():
        task.model.temperature.fill_(1e-3)  # the best wrong partner has nearly all weight
    matching: Any = objective_of(task, "itm_loss")
    counts = torch.zeros(16, 16)
    for _ in range(400):
        texts, images, labels = matching.draw_pairs(encoded)
        wrong_images = slice(16, 32)  # after the right pairs: a wrong image for each title
        assert labels[:16].all()
        assert not labels[16:].any()
        counts[texts[wrong_images], images[wrong_images]] += 1
    shares = counts / counts.sum(dim=1, keepdim=True)
    assert float(shares.diagonal().max()) == 0
    highest = float(shares.amax(dim=1).mean())
    assert highest > 0.5 if negatives == "hard" else highest < 0.12


def test_shuffled_negatives_do_not_reach_other_objectives(store: Store) -> None:
    common = "itc: 0.0, late_interaction: 0.0, mlm: 1.0, mfm: 1.0, itm_negatives: shuffled"
    found = []
    for itm in ("0.0", "1.0"):
        task, batches = made(
            store, "model.cross={fusion: joint}", f"objectives={{{common}, itm: {itm}}}"
        )
        task.model.eval()
        found.append(task(batches.batch(0)).losses)
    for name in ("mlm_loss", "mfm_loss"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)


def test_the_joint_encoder_reads_both_sides_and_no_padding(store: Store) -> None:
    task, batches = made(store, "model.cross={fusion: joint}")
    model: Any = task.model.eval()
    batch = batches.batch(0)
    encoded = task.encode(batch, 0.0)
    texts, images = encoded.texts.states, encoded.images.states
    together = model.cross.score(texts, images)
    length = int(batch.text.attention_mask[0].sum())
    first, second = torch.tensor([0]), torch.tensor([1])
    unpadded = States(texts.values[:1, :length])
    alone = model.cross.score(unpadded, images.select(first))
    torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-5)
    other = model.cross.score(texts.select(first), images.select(second))
    assert not torch.allclose(other[0], together[0], atol=1e-5)
    assert not any("_text" in name for name in model.state_dict())
    assert model.cross.fusion.drops_first  # a class token that saw the hidden patches
    assert images.values.shape[1] == 4


def test_hidden_patches_are_zero_at_the_input_and_padding_is_no_candidate(store: Store) -> None:
    task, batches = made(
        store, "model.cross={fusion: joint}", "objectives={mlm: 1.0, mfm: 1.0, itm: 0.0}"
    )
    batch = batches.batch(0)
    encoded = task.encode(batch, 0.0)
    patches: Any = objective_of(task, "mfm_loss")
    hidden = patches.prepare(encoded)
    assert len(hidden.candidates) == 16 * 4
    for row, column in hidden.places.nonzero().tolist():
        own = hidden.candidates[hidden.index[row, column]]
        assert torch.equal(own, encoded.images.states.values[row, column].detach())
    model: Any = task.model
    seen: list[Tensor] = []
    model.cross.fusion.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch)
    projected = next(value for value in seen if bool((value == 0).all(dim=-1).any()))
    assert torch.equal((projected == 0).all(dim=-1), hidden.places)


def test_hidden_patches_of_one_image_differ_by_their_position(store: Store) -> None:
    task, batches = made(store, "model.cross={fusion: joint}", "objectives.mfm=1.0")
    batch = batches.batch(0)
    text = batch.text
    model: Any = task.model.eval()
    patches = task.encode(batch, 0.0).images.states
    hidden = torch.ones(patches.values.shape[:2], dtype=torch.bool)
    titles = States(text.input_ids, text.attention_mask)
    _, read = model.cross.fusion.both(titles, patches, hidden=hidden)
    for one in range(4):
        for other in range(one):
            assert not torch.allclose(read[:, one], read[:, other], atol=1e-2)


def test_one_objective_is_drawn_by_the_number_of_the_batch(store: Store) -> None:
    task, batches = made(
        store,
        "model.cross={fusion: joint}",
        "objectives={itc: 0.5, late_interaction: 0.0, mlm: 0.25, mfm: 0.125, itm: 0.0, "
        "task_sampling: one}",
    )

    def draw(number: int) -> tuple[str, float]:
        (objective,) = task.active_objectives(number, 1.0)
        return objective.name, objective.weight

    drawn = [draw(number) for number in range(60)]
    assert set(drawn) == {("itc_loss", 0.5), ("mlm_loss", 0.25), ("mfm_loss", 0.125)}
    assert drawn == [draw(number) for number in range(60)]
    output = task(batches.batch(0), 0.0, 7)
    assert list(output.losses) == [drawn[7][0]]
    total, loss = output.total.detach(), output.losses[drawn[7][0]].detach()
    assert float(total) == pytest.approx(drawn[7][1] * float(loss))


SMALL = [*TINY, "text.pretrained=null", "text.tokenizer=builtin", "image.pretrained=false"]

MOMENTUM = ["objectives.momentum.queue=40", "model.interaction=bagwise"]

CONFIGS = {
    "pretrain_albef": (
        [*SMALL, *MOMENTUM, "text.layers=2", "model.cross.layers=2"],
        {"itc_loss": 1.0, "late_interaction_loss": 1.0, "itm_loss": 1.0, "mlm_loss": 1.0},
    ),
    "pretrain_qq": (
        [*SMALL, "text.layers=2"],
        {"mlm_loss": 1 / 1.25 / 3, "mfm_loss": 1 / 3 / 3, "itm_loss": 1 / 100 / 3},
    ),
    "pretrain_demo": (TINY, {"late_interaction_loss": 1.0}),
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_each_pretraining_config_takes_a_step_of_all_its_objectives(
    store: Store, name: str
) -> None:
    overrides, weights = CONFIGS[name]
    config = load_config(name, [*overrides, "training.batch_size=16"])
    model = new_model(config)
    batches = batches_of(store, config, model)
    task = RetrievalTask(model, config, positives=batches.positives).train()
    for number in range(2):
        output = accumulate_gradients(task, batches.batch(number), epoch=0.5, number=number)
    assert output.weights == pytest.approx(weights, rel=1e-4)
    assert output.losses.keys() == weights.keys()
    assert all(bool(loss.isfinite()) for loss in output.losses.values())
    still = [
        n
        for n, p in model.named_parameters()
        if p.grad is None or not bool(p.grad.isfinite().all())
    ]
    unused = ("temperature",) if name == "pretrain_qq" else ()
    assert [n for n in still if n not in unused and "_proj" not in n] == []


def test_a_resumed_pretraining_is_the_unbroken_one_to_the_bit(store: Store, tmp_path: Path) -> None:
    common = [
        "model.cross={fusion: joint}",
        "objectives={mlm: 1.0, mfm: 1.0, itm: 0.5, momentum: {queue: 23}, task_sampling: one}",
        "text.dropout=0.1",
        "training.schedule_steps=10",
        "training.micro_batch_size=6",
        "training.log_every=3",
    ]
    for name, steps in (("whole", 10), ("broken", 5)):
        config = settings(*common, f"training.max_steps={steps}")
        start_run(config, store, tmp_path / name, new_model(config))
    config = resume_config(tmp_path / "broken", ["training.max_steps=10"])
    torch.manual_seed(99)
    resume_run(config, store, tmp_path / "broken")
    ours, theirs = weights(tmp_path / "broken/last"), weights(tmp_path / "whole/last")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(tmp_path / "broken")[-1] == losses(tmp_path / "whole")[-1]
    assert any(name.endswith("_loss_weight") for name in read_metrics(tmp_path / "whole")[1])


def test_fine_tuning_starts_from_pretrained_weights(store: Store, tmp_path: Path) -> None:
    config = settings("objectives={mlm: 1.0, momentum: {queue: 9}}", "training.max_steps=2")
    start_run(config, store, tmp_path / "run", new_model(config))
    pretrained = weights(tmp_path / "run/best")
    for overrides in (
        ["model.interaction=bagwise"],
        ["model.interaction=cls", "model.cross=null", "objectives.itm=0"],
        ["model.cross={kind: captioner}", "objectives.itm=0", "objectives.caption=1"],
        ["model.shared={cells: 32}", "model.interaction=tokenwise"],
    ):
        model = new_model(settings(*overrides), tmp_path / "run")
        own = model.state_dict()
        shared = [n for n in own if n in pretrained and own[n].shape == pretrained[n].shape]
        assert any(name.startswith("dual.text_encoder") for name in shared)
        assert any(name.startswith("dual.vision_encoder") for name in shared)
        assert all(torch.equal(own[name], pretrained[name]) for name in shared)
