"""The rows of MUGE's protocol: published figures, their sources, and settings of their trainings.

Every figure was copied from the source named with it. A row without figures (None) has none in a
source that could be read. All figures are text-to-image recall on the official validation split, in
percent; every image of the split is a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Recall in percent: R@1, R@5, R@10, and their mean."""

    r1: float
    r5: float
    r10: float
    mean: float


@dataclass(frozen=True)
class Counts:
    """Numbers of images, queries and pairs of an official split; None: the source has none."""

    images: int
    queries: int | None
    pairs: int | None


SPLITS = {
    "train": Counts(129_380, None, 250_314),
    "valid": Counts(29_806, 5_008, 30_588),
    "test": Counts(30_399, 5_004, None),
}
"""Counts in the logs of ``Chinese-CLIP-on-MUGE-Retrieval.ipynb`` in Chinese-CLIP's repository."""


@dataclass(frozen=True)
class Row:
    """One row of a published table.

    Attributes:
        name: Its name in ``--rows``.
        published: The published figures; None: they could not be read.
        weights: Names of its weights in the folder of ``--weights``; the first that exists is used.
        config: Configuration of its fine-tuning; None: the weights are only evaluated.
        settings: Settings of the published training, as ``--set`` items.
    """

    name: str
    published: Figures | None
    weights: tuple[str, ...]
    config: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def is_bagformer(self) -> bool:
        """Whether the weights are BagFormer's; else they are Chinese-CLIP's."""
        return self.name.startswith("bagformer/")


# ------------------------------------------------------------------------------------ Chinese-CLIP

CHINESE_CLIP_SOURCE = (
    "Chinese-CLIP: Results.md of its repository (commit 31863c7), table "
    '"MUGE Text-to-Image Retrieval (Official Validation Set)"'
)
# Size: names of its weights (in the original repository, on the hub); pairs per forward pass that
# fit a card of 24 GB (docs/muge.md); zero-shot figures; fine-tuned figures.
_CHINESE_CLIP: dict[str, tuple[tuple[str, str], int, Figures, Figures]] = {
    "RN50": (
        ("clip_cn_rn50.pt", "chinese-clip-rn50"),
        64,
        Figures(42.6, 68.6, 77.9, 63.0),
        Figures(48.6, 75.1, 84.0, 69.2),
    ),
    "B-16": (
        ("clip_cn_vit-b-16.pt", "chinese-clip-vit-base-patch16"),
        64,
        Figures(52.1, 76.7, 84.4, 71.1),
        Figures(58.4, 83.6, 90.0, 77.4),
    ),
    "L-14": (
        ("clip_cn_vit-l-14.pt", "chinese-clip-vit-large-patch14"),
        16,
        Figures(56.3, 79.8, 86.2, 74.1),
        Figures(63.3, 85.6, 91.3, 80.1),
    ),
    "L-14-336": (
        ("clip_cn_vit-l-14-336.pt", "chinese-clip-vit-large-patch14-336px"),
        8,
        Figures(59.0, 81.4, 87.8, 76.1),
        Figures(65.3, 86.7, 92.1, 81.3),
    ),
    "H-14": (
        ("clip_cn_vit-h-14.pt", "chinese-clip-vit-huge-patch14"),
        4,
        Figures(63.0, 84.1, 89.2, 78.8),
        Figures(68.9, 88.7, 93.1, 83.6),
    ),
}
# Source: run_scripts/muge_finetune_vit-b-16_rbt-base.sh, 8 cards of 128 pairs each. Here one card
# computes the 1,024 pairs of a step in parts (training.micro_batch_size), with the same gradient.
# The original's train.py does not clip gradients. The script is for B/16. The paper's settings of
# each size (appendix A.3) could not be read, so the other sizes are trained like B/16.
CHINESE_CLIP_TRAINING = (
    "model.interaction=cls",
    "objectives.late_interaction=0",
    "text.max_tokens=52",
    "training.batch_size=1024",
    "training.learning_rate=5.0e-5",
    "training.weight_decay=0.001",
    "training.warmup_steps=100",
    "training.epochs=3",
    "training.clip=null",
)

# --------------------------------------------------------------------------------------- BagFormer

BAGFORMER_SOURCE = (
    "BagFormer: the tables of its paper (Hou et al., arXiv 2212.14322) could not be read here; "
    "its repository has no figures"
)
PRETRAINED, PUBLISHED = "bagformer_pretrained.pth", "bagformer_muge.pth"
DICTIONARY, VOCABULARY = "entity_dict_20220507", "vocab.txt"
# Source: configs/config_muge.yaml of its repository (commit 4ad8d80), without its reranking: the
# rows measure the dual encoder.
BAGFORMER_TRAINING = (
    "text.max_tokens=25",
    "training.batch_size=32",
    "training.learning_rate=1.0e-5",
    "training.weight_decay=0.02",
    "training.warmup_steps=0",
    "training.epochs=6",
    "evaluation.candidates=0",
)
_BAGFORMER_CONFIGS = {  # in quotes: the names of the baselines in its README
    "bagwise": "muge_bagformer",
    "tokenwise": "muge_tokenwise",  # "BagFormer w/o bagging layer"
    "cls": "muge_cls",  # "BagFormer w/o late interaction"
}

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        *(
            Row(f"zero-shot/{size}", zero_shot, weights)
            for size, (weights, _, zero_shot, _) in _CHINESE_CLIP.items()
        ),
        *(
            Row(
                f"fine-tuned/{size}",
                tuned,
                weights,
                "muge_chinese_clip",
                (*CHINESE_CLIP_TRAINING, f"training.micro_batch_size={pairs}"),
            )
            for size, (weights, pairs, _, tuned) in _CHINESE_CLIP.items()
        ),
        Row("bagformer/published", None, (PUBLISHED,)),
        *(
            Row(f"bagformer/{name}", None, (PRETRAINED,), config, BAGFORMER_TRAINING)
            for name, config in _BAGFORMER_CONFIGS.items()
        ),
    )
}
