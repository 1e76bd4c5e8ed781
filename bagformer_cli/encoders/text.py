"""BERT as a source of token vectors, from ids or from embeddings.

Shapes: B batch, L tokens (with [CLS], [SEP] and padding), W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    def word_embeddings(self, input_ids: Tensor) -> Tensor:
        """Rows of the word embedding alone, without positions: [...] int64 to [..., W]."""
        rows: Tensor = self.bert.embeddings.word_embeddings(input_ids)
        return rows

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Encode ids, or word vectors that stand in their place (positions are added here).

        Args:
            input_ids: [B, L] int64, or None.
            attention_mask: [B, L] bool, True keeps.
            inputs_embeds: [B, L, W], where ``input_ids`` is None.

        Returns:
            [B, L, W]; rows of padding hold nothing of use.
        """
        output: Tensor = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds
        ).last_hidden_state
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
