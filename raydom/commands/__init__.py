"""What each command of the command line is told: a class a command, whose fields are its options.

Their docstrings are the help texts. Importing this package is cheap, as that of ``raydom.config``.
"""

from raydom.commands.adaptation import (
    AdaptationConfig,
    DannConfig,
    DiscrepancyConfig,
    EntropyConfig,
    MeanTeacherConfig,
    OutputAdversaryConfig,
)
from raydom.commands.blocks import CompareConfig, DemoConfig, EvaluateConfig, SegmentConfig, StylizeConfig
from raydom.commands.collections import FindDomainsConfig, InfoConfig, IngestConfig, PackConfig, SynthesizeConfig
from raydom.commands.domains import DomainsConfig, TargetFilter
from raydom.commands.neuron_training import NeuronCompareConfig, NeuronTrainConfig, TruthConfig
from raydom.commands.neurons import MembraneConfig, NeuronSegmentConfig, NeuronShowConfig
from raydom.commands.planning import PLANNED, PlanConfig, why_not_planned
from raydom.commands.search import TUNED, SearchedTraining, TuneStyleConfig
from raydom.commands.submission import JobsConfig, LogsConfig, StopConfig, SubmitConfig, check_submitted
from raydom.commands.supervised import BALANCED, NetworkOptions, SupervisedConfig
from raydom.commands.translation import CycleGanConfig, DritConfig

__all__ = [
    "BALANCED",
    "PLANNED",
    "TUNED",
    "AdaptationConfig",
    "CompareConfig",
    "CycleGanConfig",
    "DannConfig",
    "DemoConfig",
    "DiscrepancyConfig",
    "DomainsConfig",
    "DritConfig",
    "EntropyConfig",
    "EvaluateConfig",
    "FindDomainsConfig",
    "InfoConfig",
    "IngestConfig",
    "JobsConfig",
    "LogsConfig",
    "MeanTeacherConfig",
    "MembraneConfig",
    "NetworkOptions",
    "NeuronCompareConfig",
    "NeuronSegmentConfig",
    "NeuronShowConfig",
    "NeuronTrainConfig",
    "OutputAdversaryConfig",
    "PackConfig",
    "PlanConfig",
    "SearchedTraining",
    "SegmentConfig",
    "StopConfig",
    "StylizeConfig",
    "SubmitConfig",
    "SupervisedConfig",
    "SynthesizeConfig",
    "TargetFilter",
    "TruthConfig",
    "TuneStyleConfig",
    "check_submitted",
    "why_not_planned",
]
