"""Options that reach transformers and timm: a list of known names, each with its type and range.

Both libraries take any argument, and some of theirs load files, download or run code
(``checkpoint_path``, ``attn_implementation`` …). A configuration may come from a stranger's model
folder, so only arguments that describe an architecture are passed on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

Size = Annotated[int, Field(ge=1, le=65536)]
Count = Annotated[int, Field(ge=0, le=1000)]
Rate = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Sizes = Size | Annotated[list[Size], Field(max_length=64)]
Counts = Count | Annotated[list[Count], Field(max_length=64)]
Ratios = Ratio | Annotated[list[Ratio], Field(max_length=64)]
Activation = Literal[
    "gelu", "gelu_tanh", "hard_sigmoid", "hard_swish", "leaky_relu", "mish", "quick_gelu", "relu",
    "relu6", "selu", "silu", "swish",
]  # fmt: skip
Norm = Literal["batchnorm", "groupnorm", "layernorm", "layernorm2d", "rmsnorm", "rmsnorm2d"]


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
class TextOptions(TypedDict, total=False):
    """Further arguments of transformers' ``BertConfig``."""

    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"]
    """Activation of the feed-forward layers. Default: gelu."""
    initializer_range: Annotated[float, Field(ge=0, le=10)]
    """Standard deviation of random weights. Default: 0.02."""
    layer_norm_eps: Annotated[float, Field(gt=0, le=1)]
    """Added to variances in layer normalisation. Default: 1e-12."""
    max_position_embeddings: Annotated[int, Field(ge=3, le=8192)]
    """Positions; at least ``max_tokens``. Default: 512."""
    type_vocab_size: Annotated[int, Field(ge=1, le=64)]
    """Segment types; only the first is used. Default: 2."""


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
class ImageOptions(TypedDict, total=False):
    """Further arguments of ``timm.create_model``; which of them exist depends on the backbone."""

    act_layer: Activation
    """Activation."""
    attn_drop_rate: Rate
    """Dropout of attention weights."""
    avg_down: bool
    """Average pooling in the shortcuts that halve the map (ResNet)."""
    base_width: Size
    """Width of a bottleneck's groups (ResNet)."""
    cardinality: Size
    """Groups of a convolution (ResNeXt)."""
    channels: Sizes
    """Channels of each stage (ResNet)."""
    class_token: bool
    """Whether a vision transformer has a class token."""
    conv_mlp: bool
    """Convolutions instead of linear layers (ConvNeXt)."""
    depth: Count
    """Blocks of a vision transformer."""
    depths: Counts
    """Blocks of each stage."""
    dims: Sizes
    """Channels of each stage (ConvNeXt)."""
    drop_block_rate: Rate
    """Rate of DropBlock (ResNet)."""
    drop_path_rate: Rate
    """Rate of stochastic depth."""
    drop_rate: Rate
    """Dropout before the classifier, which is not built."""
    dynamic_img_size: bool
    """Accept images of any size."""
    embed_dim: Sizes
    """Width of a transformer."""
    final_norm: bool
    """Normalise after the last block."""
    head_dim: Size
    """Width of an attention head."""
    init_values: Annotated[float, Field(ge=0, le=10)]
    """Initial scale of LayerScale."""
    kernel_sizes: Sizes
    """Kernel of each stage (ConvNeXt)."""
    layers: Counts
    """Blocks of each stage (ResNet)."""
    ls_init_value: Annotated[float, Field(ge=0, le=10)]
    """Initial scale of LayerScale (ConvNeXt)."""
    mlp_ratio: Ratios
    """Width of the feed-forward layers, as a multiple of ``embed_dim``."""
    no_embed_class: bool
    """No position embedding for the class token."""
    norm_layer: Norm
    """Normalisation."""
    num_heads: Sizes
    """Attention heads; a number, or one for each stage."""
    output_stride: Literal[8, 16, 32]
    """Pixels per cell of the last map, per side (ResNet). Smaller: more patches, more time."""
    patch_drop_rate: Rate
    """Share of patches that training leaves out."""
    patch_size: Size
    """Pixels per patch, per side."""
    pos_drop_rate: Rate
    """Dropout after position embeddings."""
    pos_embed: Literal["", "none", "learn"]
    """Position embedding of a vision transformer."""
    pre_norm: bool
    """Normalise before the first block."""
    proj_drop_rate: Rate
    """Dropout of feed-forward and attention outputs."""
    qk_norm: bool
    """Normalise queries and keys."""
    qkv_bias: bool
    """Bias of queries, keys and values."""
    reg_tokens: Count
    """Register tokens of a vision transformer; they are dropped from the output."""
    stem_type: Literal["", "deep", "deep_tiered", "patch", "overlap", "overlap_tiered"]
    """Form of the first layers (ResNet, ConvNeXt)."""
    stem_width: Size
    """Channels of the first layers (ResNet)."""
    use_grn: bool
    """Global response normalisation (ConvNeXt V2)."""
    width_factor: Ratio
    """Channels of all stages, as a multiple of the usual ones (CLIP's ResNet)."""
    window_size: Sizes
    """Cells of an attention window, per side (Swin)."""
