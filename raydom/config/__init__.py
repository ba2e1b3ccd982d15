"""Typed configurations: what a run is made of, checked once, where it is made.

What the commands share; ``raydom.commands`` has the configuration of each. Importing this package is cheap (no numpy,
torch or ray), so that ``raydom --help`` is quick. The command line, the YAML files beside the jobs and the JSON beside
every result all describe these classes.
"""

from raydom.config.base import fingerprint, from_dict, require, to_dict, usual_values
from raydom.config.drit import DisentangledConfig, DritLossConfig
from raydom.config.execution import BlockConfig, ClusterConfig, RunConfig, TrainRunConfig
from raydom.config.generators import GENERATORS, DomainSpec, GeneratorConfig, GeneratorSpec
from raydom.config.images import Condition, ImageFilter
from raydom.config.instances import InstanceConfig
from raydom.config.models import NETWORKS, OUTPUTS, MaskRCNNConfig, ModelSpec, NetworkConfig
from raydom.config.neurons import (
    CALIBRATIONS,
    SOLVERS,
    EvidenceConfig,
    ForestConfig,
    ForestSpec,
    MulticutConfig,
    NeuronConfig,
    SuperpixelConfig,
)
from raydom.config.prediction import PredictionConfig
from raydom.config.prices import LimitConfig, NodeType, PriceConfig, StorePrices
from raydom.config.search import SCHEDULERS, SEARCHERS, SearchConfig
from raydom.config.styles import (
    DEFAULT_FEATURES,
    DIRECTIONS,
    FEATURES,
    MATCHING,
    METHODS,
    NST_PRESETS,
    TRAINED,
    AnalogyConfig,
    NstConfig,
    NstSettings,
    StrotssConfig,
    StyleConfig,
    StyleOptions,
)
from raydom.config.synthesis import CELL_TYPES, CellConfig
from raydom.config.training import TrainConfig

__all__ = [
    "CALIBRATIONS",
    "CELL_TYPES",
    "DEFAULT_FEATURES",
    "DIRECTIONS",
    "FEATURES",
    "GENERATORS",
    "MATCHING",
    "METHODS",
    "NETWORKS",
    "NST_PRESETS",
    "OUTPUTS",
    "SCHEDULERS",
    "SEARCHERS",
    "SOLVERS",
    "TRAINED",
    "AnalogyConfig",
    "BlockConfig",
    "CellConfig",
    "ClusterConfig",
    "Condition",
    "DisentangledConfig",
    "DomainSpec",
    "DritLossConfig",
    "EvidenceConfig",
    "ForestConfig",
    "ForestSpec",
    "GeneratorConfig",
    "GeneratorSpec",
    "ImageFilter",
    "InstanceConfig",
    "LimitConfig",
    "MaskRCNNConfig",
    "ModelSpec",
    "MulticutConfig",
    "NetworkConfig",
    "NeuronConfig",
    "NodeType",
    "NstConfig",
    "NstSettings",
    "PredictionConfig",
    "PriceConfig",
    "RunConfig",
    "SearchConfig",
    "StorePrices",
    "StrotssConfig",
    "StyleConfig",
    "StyleOptions",
    "SuperpixelConfig",
    "TrainConfig",
    "TrainRunConfig",
    "fingerprint",
    "from_dict",
    "require",
    "to_dict",
    "usual_values",
]
