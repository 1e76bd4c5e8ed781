"""The text encoder: token ids to states, by the first layers of a BERT or by a bag of words.

Shapes: B batch, L tokens (with [CLS], [SEP] and padding), W width, n code tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from bagformer_cli.config import TextConfig

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


class TextEncoder(nn.Module):
    """The first ``config.layers`` layers of a BERT.

    Args:
        config: Sizes of the encoder.
        vocab_size: Rows of the word embedding.
        pad_id: Id of the padding token.
        bert: A pretrained BERT, whose embeddings and first layers are copied; None: random weights.
    """

    def __init__(
        self, config: TextConfig, vocab_size: int, pad_id: int = 0, bert: BertModel | None = None
    ) -> None:
        super().__init__()
        self.width = config.width
        self.averages = config.summary == "mean"
        if bert is None:
            self.bert = BertModel(
                bert_config(config, vocab_size, pad_id, config.layers), add_pooling_layer=False
            )
        else:
            self.bert = _first_layers(bert, config)
        self._freeze(config.frozen_layers)

    @property
    def word_table(self) -> Tensor:
        """The weight of the word embedding, [V, W]."""
        table: Tensor = self.bert.embeddings.word_embeddings.weight
        return table

    def word_embeddings(self, input_ids: Tensor) -> Tensor:
        """Look up word embeddings without positions: ids of any shape [...] to [..., W]."""
        rows: Tensor = self.bert.embeddings.word_embeddings(input_ids)
        return rows

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        inputs_embeds: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Encode titles.

        Args:
            input_ids: [B, L] int64; None: ``inputs_embeds`` is given instead.
            attention_mask: [B, L] bool, False for padding.
            inputs_embeds: [B, L, W] word embeddings; positions are added here.
            codes: [n, W] code tokens, appended to each title without position embeddings.

        Returns:
            [B, L (+ n), W]; states of padding are meaningless. With ``summary: mean``, position 0
            is the mean of the title's states.
        """
        # Not self.bert(...): it reads the mask on the host to see whether there is padding, and
        # waits for the GPU at every call.
        hidden = self.bert.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds)
        output = self.layers(hidden, attention_mask, codes)
        if not self.averages:
            return output
        weights = attention_mask.to(output.dtype)[:, :, None]
        length = attention_mask.shape[1]
        mean = (output[:, :length] * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
        return torch.cat([mean, output[:, 1:]], dim=1)

    def layers(self, hidden: Tensor, mask: Tensor | None, codes: Tensor | None = None) -> Tensor:
        """Run the transformer layers over any sequence of the encoder's width.

        Args:
            hidden: [B, L, W] embeddings, with positions and LayerNorm applied.
            mask: [B, L] bool, False for padding; or [B, 1, 1, L], what is added to the attention
                logits; None: every position counts.
            codes: [n, W] code tokens, appended to every item.

        Returns:
            [B, L (+ n), W].
        """
        if codes is not None:
            items, n = hidden.shape[0], len(codes)  # len() of a tensor fixes a traced batch size
            hidden = torch.cat([hidden, codes.expand(items, -1, -1)], dim=1)
            mask = None if mask is None else F.pad(mask.bool(), (0, n), value=True)
        added = None
        if mask is not None and mask.ndim == 4:
            added = mask
        elif mask is not None:
            least = torch.finfo(hidden.dtype).min
            added = torch.where(mask.bool(), 0.0, least).to(hidden.dtype)[:, None, None, :]
        output: Tensor = self.bert.encoder(hidden, attention_mask=added).last_hidden_state
        return output

    def layer_depths(self) -> dict[str, int]:
        """Return the depth of each parameter's layer: 1 for the top layer, most for embeddings."""
        layers = len(self.bert.encoder.layer)
        depths = {}
        for name, _ in self.bert.named_parameters():
            found = _LAYER.match(name)
            depths[f"bert.{name}"] = layers - int(found[1]) if found else layers + 1
        return depths

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        enable = getattr(  # renamed in transformers 5.x
            self.bert, "activation_checkpointing_enable", self.bert.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})

    def _freeze(self, layers: int | Literal["all"]) -> None:
        if layers == "all":
            self.bert.requires_grad_(False)
        elif layers:
            self.bert.embeddings.requires_grad_(False)
            for layer in self.bert.encoder.layer[:layers]:
                layer.requires_grad_(False)


class BagOfWords(nn.Module):
    """Represent a title by the mean of its word embeddings, in place of a :class:`TextEncoder`.

    The fast model of Thinking Fast and Slow (section 3.1).

    Args:
        config: The width W.
        vocab_size: Rows of the word embedding.
        special: Ids that the mean leaves out: [CLS], [SEP], padding.
    """

    def __init__(self, config: TextConfig, vocab_size: int, special: Sequence[int]) -> None:
        super().__init__()
        self.width = config.width
        self.words = nn.Embedding(vocab_size, config.width)
        nn.init.normal_(self.words.weight, std=config.options.get("initializer_range", 0.02))
        self.special = tuple(special)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode [B, L] ids to [B, L, W]: the mean at position 0, then the word embeddings."""
        words = self.words(input_ids)
        kept = attention_mask.bool()
        for number in self.special:
            kept = kept & (input_ids != number)
        # A title of special tokens only: average these, so that nothing is divided by zero.
        kept = kept | (attention_mask.bool() & ~kept.any(dim=1, keepdim=True))
        weights = kept.to(words.dtype)[:, :, None]
        mean = (words * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        return torch.cat([mean, words[:, 1:]], dim=1)

    def checkpoint_gradients(self) -> None:
        """Do nothing: there are no layers to recompute."""


def bert_config(config: TextConfig, vocab_size: int, pad_id: int, layers: int) -> BertConfig:
    """Build the ``BertConfig`` of a BERT with the sizes of the text section."""
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


def _first_layers(bert: BertModel, config: TextConfig) -> BertModel:
    """Copy a BERT without the layers after the first ``config.layers``."""
    own = bert.config
    shorter = bert_config(config, own.vocab_size, int(own.pad_token_id or 0), config.layers)
    model = BertModel(shorter, add_pooling_layer=False)
    missing, _ = model.load_state_dict(bert.state_dict(), strict=False)
    assert not missing, missing
    return model
