"""The configuration of a run: a pydantic schema, YAML files and ``a.b=c`` overrides.

``schema.py`` and ``training.py`` list every key, ``rules.py`` the settings that exclude each other,
``load.py`` reads and writes files, ``modes.py`` the training recipes of ``--mode``. A config file
may start from another one (``extends: muge_bagformer.yaml``) and then states only what differs. An
unknown key, a wrong type and settings that exclude each other are a
:class:`~bagformer_cli.errors.ConfigError` that names the place.
"""

from __future__ import annotations

from bagformer_cli.config.load import load_config, save_config
from bagformer_cli.config.modes import builtin_modes, default_config, find_mode
from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.schema import (
    AugmentConfig,
    Compat,
    CrossConfig,
    DataConfig,
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
)
from bagformer_cli.config.training import (
    DistillConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    LoraConfig,
    TrainingConfig,
)
from bagformer_cli.config.yaml_files import builtin_configs, find_config, yaml

__all__ = [
    "AugmentConfig",
    "Compat",
    "CrossConfig",
    "DataConfig",
    "DistillConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "HeadConfig",
    "ImageConfig",
    "Interaction",
    "LoraConfig",
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
    "default_config",
    "find_config",
    "find_mode",
    "load_config",
    "save_config",
    "yaml",
]
