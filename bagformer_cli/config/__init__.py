"""The configuration of a run: pydantic models, YAML in and out, ``a.b=c`` overrides.

A config file may name another one to start from (``extends: muge_bagformer.yaml``, beside it or
among the built-in ones) and then states only what differs. An unknown key, a wrong type and an
impossible combination are a :class:`~bagformer_cli.errors.ConfigError` that names the place.
"""

from __future__ import annotations

from bagformer_cli.config.files import (
    builtin_configs,
    builtin_modes,
    find_config,
    find_mode,
    load_config,
    save_config,
    yaml,
)
from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.schema import (
    AugmentConfig,
    Compat,
    CrossConfig,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    HeadConfig,
    ImageConfig,
    Interaction,
    MaskingConfig,
    ModelConfig,
    MomentumConfig,
    ObjectivesConfig,
    Pooling,
    RegionsConfig,
    SharedConfig,
    TemperatureConfig,
    TextConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentConfig",
    "Compat",
    "CrossConfig",
    "DataConfig",
    "DistillConfig",
    "EvaluationConfig",
    "HeadConfig",
    "ImageConfig",
    "Interaction",
    "MaskingConfig",
    "ModelConfig",
    "MomentumConfig",
    "ObjectivesConfig",
    "Pooling",
    "RegionsConfig",
    "RunConfig",
    "SharedConfig",
    "TemperatureConfig",
    "TextConfig",
    "TrainingConfig",
    "builtin_configs",
    "builtin_modes",
    "find_config",
    "find_mode",
    "load_config",
    "save_config",
    "yaml",
]
