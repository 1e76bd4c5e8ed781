"""Titles to token vectors: BERT, from ids or from embeddings, or a bag of words.

Shapes: B batch, L tokens (with [CLS], [SEP] and padding), W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from bagformer_cli.config import TextConfig
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.messages import tr


class TextEncoder(nn.Module):
    """The first ``config.layers`` layers of a BERT.

    Args:
        config: Sizes of the encoder.
        vocab_size: Rows of the word embedding.
        pad_id: The row that stands for padding.
        bert: A whole pretrained BERT to take embeddings and layers from; None: random weights.
    """

    def __init__(
        self, config: TextConfig, vocab_size: int, pad_id: int = 0, bert: BertModel | None = None
    ) -> None:
        super().__init__()
        self.width = config.width
        if bert is None:
            self.bert = BertModel(
                bert_config(config, vocab_size, pad_id, config.layers), add_pooling_layer=False
            )
        else:
            self.bert = _first_layers(bert, config.layers)
        self._freeze(config.frozen_layers)

    @property
    def word_table(self) -> Tensor:
        """[V, W] the rows of the word embedding."""
        table: Tensor = self.bert.embeddings.word_embeddings.weight
        return table

    def word_embeddings(self, input_ids: Tensor) -> Tensor:
        """Rows of the word embedding alone, without positions: [...] int64 to [..., W]."""
        rows: Tensor = self.bert.embeddings.word_embeddings(input_ids)
        return rows

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        inputs_embeds: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Encode ids, or word vectors that stand in their place (positions are added here).

        Args:
            input_ids: [B, L] int64, or None.
            attention_mask: [B, L] bool, True keeps.
            inputs_embeds: [B, L, W], where ``input_ids`` is None.
            codes: [n, W] slots that each title gets behind its positions, without a place.

        Returns:
            [B, L (+ n), W]; rows of padding hold nothing of use.
        """
        if codes is not None:
            hidden = self.bert.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds)
            return self.layers(hidden, attention_mask, codes)
        output: Tensor = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds
        ).last_hidden_state
        return output

    def layers(self, hidden: Tensor, mask: Tensor | None, codes: Tensor | None = None) -> Tensor:
        """The layers alone, over any sequence in the encoder's width.

        Args:
            hidden: [B, L, W], positions and LayerNorm done.
            mask: [B, L] bool, True keeps; None: all.
            codes: [n, W] appended to every item.

        Returns:
            [B, L (+ n), W].
        """
        if codes is not None:
            items, n = len(hidden), len(codes)
            hidden = torch.cat([hidden, codes.expand(items, -1, -1)], dim=1)
            mask = None if mask is None else F.pad(mask.bool(), (0, n), value=True)
        added = None
        if mask is not None:
            least = torch.finfo(hidden.dtype).min
            added = torch.where(mask.bool(), 0.0, least).to(hidden.dtype)[:, None, None, :]
        output: Tensor = self.bert.encoder(hidden, attention_mask=added).last_hidden_state
        return output

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        enable = getattr(  # transformers renamed it in 5.x
            self.bert, "activation_checkpointing_enable", self.bert.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})

    def _freeze(self, layers: int) -> None:
        if layers:
            self.bert.embeddings.requires_grad_(False)
            for layer in self.bert.encoder.layer[:layers]:
                layer.requires_grad_(False)


class BagOfWords(nn.Module):
    """A title as the mean of its word embeddings, specials left out.

    In place of a :class:`TextEncoder` (Thinking Fast and Slow, section 3.1).

    Args:
        config: The width.
        vocab_size: Rows of the word embedding.
        special: Ids that are no words: [CLS], [SEP], padding.
    """

    def __init__(self, config: TextConfig, vocab_size: int, special: Sequence[int]) -> None:
        super().__init__()
        self.width = config.width
        self.words = nn.Embedding(vocab_size, config.width)
        nn.init.normal_(self.words.weight, std=config.options.get("initializer_range", 0.02))
        self.special = tuple(special)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, L] ids to [B, L, W]: the mean at position 0, behind it the words themselves."""
        words = self.words(input_ids)
        kept = attention_mask.bool()
        for number in self.special:
            kept = kept & (input_ids != number)
        # a title without words keeps whatever it has
        kept = torch.where(kept.any(dim=1, keepdim=True), kept, attention_mask.bool())
        weights = kept.to(words.dtype)[:, :, None]
        mean = (words * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        return torch.cat([mean, words[:, 1:]], dim=1)

    def checkpoint_gradients(self) -> None:
        """Nothing here is worth recomputing."""


def bert_config(config: TextConfig, vocab_size: int, pad_id: int, layers: int) -> BertConfig:
    """The ``BertConfig`` of a BERT of these sizes."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "pad_token_id": pad_id,
        "hidden_size": config.width,
        "num_hidden_layers": layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        **config.options,
    }
    return BertConfig(**settings)


def load_bert(source: str, layers: int) -> BertModel:
    """A pretrained BERT from a folder or a hub name.

    Args:
        source: What ``BertModel.from_pretrained`` takes.
        layers: Layers it must have at least.

    Raises:
        CheckpointError: It cannot be found or read.
        ConfigError: It has too few layers.
    """
    try:
        bert = BertModel.from_pretrained(source, add_pooling_layer=False)
    except (OSError, ValueError, RuntimeError) as error:
        local = Path(source).exists()
        raise CheckpointError(
            tr("The pretrained BERT cannot be loaded."),
            where=f"text.pretrained: {source}",
            found=str(error).strip().splitlines()[0],
            hint=None
            if local
            else tr("Without a network, download the model elsewhere and give its folder."),
        ) from error
    available = len(bert.encoder.layer)
    if available < layers:
        raise ConfigError(
            tr("The pretrained BERT has too few layers."),
            where=f"text.pretrained: {source}",
            found=available,
            expected=tr("at least {n}: text.layers", n=layers),
        )
    return bert


def sizes_of(bert: BertModel, config: TextConfig) -> TextConfig:
    """The text section with the sizes that a pretrained BERT really has."""
    own = bert.config
    return config.model_copy(
        update={
            "width": own.hidden_size,
            "heads": own.num_attention_heads,
            "feed_forward": own.intermediate_size,
            "options": {
                "hidden_act": own.hidden_act,
                "layer_norm_eps": own.layer_norm_eps,
                "max_position_embeddings": own.max_position_embeddings,
                "type_vocab_size": own.type_vocab_size,
            },
        }
    )


def _first_layers(bert: BertModel, layers: int) -> BertModel:
    """A BERT of the same weights that ends after so many layers."""
    shorter = BertConfig.from_dict({**bert.config.to_dict(), "num_hidden_layers": layers})
    model = BertModel(shorter, add_pooling_layer=False)
    missing, _ = model.load_state_dict(bert.state_dict(), strict=False)
    assert not missing, missing
    return model
