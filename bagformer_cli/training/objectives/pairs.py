"""Objectives on chosen pairs through a slow scorer: matching (ITM) and captioning.

Pairs are made in a forward pass of their own and masks move with what they mask, so that nothing
that is shuffled here reaches another objective.

Shapes: B images of this process, Q titles, n pairs, L tokens, P patches, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bagformer_cli.config import ObjectivesConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.losses.captioning import captioning_loss
from bagformer_cli.losses.matching import hard_negatives, matching_loss, reversed_negatives
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded


def matching_pairs(
    batch: Batch,
    texts: Encoded,
    images: Encoded,
    positives: Tensor,
    objectives: ObjectivesConfig,
    temperature: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Right and wrong pairs that ITM sees (ALBEF, section 3.2; shuffled: QQ-browser).

    Args:
        batch: Titles and images.
        texts: The titles, encoded.
        images: The images, encoded.
        positives: [Q, B] bool, pairs that are never taken as wrong.
        objectives: How wrong ones are drawn, and the share of images that are seen.
        temperature: Of the similarity that hard ones are drawn by.

    Returns:
        Titles [n], images [n] and labels [n] (1: a match), int64.
    """
    own = batch.own
    if objectives.itm_negatives == "shuffled":
        return reversed_negatives(own, positives)
    with torch.no_grad():
        logits = texts.cls @ images.cls.T / temperature
    n_images = positives.shape[1]
    seen = max(1, round(objectives.itm_share * n_images))
    # one title an image: every k-th, where each image has k of them side by side
    rows = torch.arange(seen, device=own.device) * (len(own) // n_images)
    shown = own[rows]
    wrong_images, has_image = hard_negatives(logits[rows], positives[rows])
    wrong_texts, has_text = hard_negatives(logits.T[shown], positives.T[shown])
    text_index = torch.cat([rows, rows[has_image], wrong_texts[has_text]])
    image_index = torch.cat([shown, wrong_images[has_image], shown[has_text]])
    labels = torch.zeros(len(text_index), dtype=torch.int64, device=positives.device)
    labels[: len(rows)] = 1
    return text_index, image_index, labels


def match_loss(
    model: RetrievalModel,
    texts: Encoded,
    images: Encoded,
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
) -> tuple[Tensor, float]:
    """ITM of pairs: the mean loss, and the share that was told right.

    Args:
        model: With a matching head.
        texts: Titles.
        images: Images.
        rows: [n] titles of the pairs.
        columns: [n] their images.
        labels: [n] int64, 1: a match.
    """
    head: Any = model.cross
    assert texts.mask is not None
    # index_select, not states[index]: the gradient of that is added up by several threads in
    # no fixed order, and a resumed run would no longer be the unbroken one to the bit
    logits = head(
        texts.states.index_select(0, rows),
        texts.mask[rows],
        images.states.index_select(0, columns),
        None if images.mask is None else images.mask[columns],
    )
    found = logits.detach()
    guessed = found[:, 0] > 0 if found.shape[1] == 1 else found.argmax(dim=1)
    accuracy = (guessed == labels).float().mean()
    return matching_loss(logits, labels), float(accuracy)


def caption_loss(model: RetrievalModel, batch: Batch, texts: Encoded, images: Encoded) -> Tensor:
    """The titles' likelihood under their own images (Thinking Fast and Slow, eq. 2)."""
    captioner: Any = model.cross
    own = batch.own
    assert texts.mask is not None
    ahead, behind = captioner(
        texts.states,
        texts.mask,
        images.states.index_select(0, own),
        None if images.mask is None else images.mask[own],
    )
    return captioning_loss(ahead, behind, texts.mask[:, 1:])
