"""What the commands are told that search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raydom.commands.adaptation import (
    DannConfig,
    DiscrepancyConfig,
    EntropyConfig,
    MeanTeacherConfig,
    OutputAdversaryConfig,
)
from raydom.commands.supervised import SupervisedConfig
from raydom.commands.translation import CycleGanConfig, DritConfig
from raydom.config import ImageFilter, SearchConfig, StyleOptions, TrainRunConfig, require


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFilter(ImageFilter):
    """Which images of the source are meant; without a condition, all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneStyleConfig:
    """Search the style that brings a model back on a target: method, style image, steps, weights. Images of the target
    need no labels. Writes trials.parquet, best.yaml (for raydom segment --config) and search.png."""

    source: str
    """Collection that the model was trained on, or one like it."""
    target: str
    """Collection that the model is to work on."""
    model: str
    """Folder of the trained model."""
    out: str
    """Folder of the search. The same command goes on with one that was interrupted."""
    styles: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Images to choose the style from: files, patterns of files in quotes ('styles/*.tif'), or conditions on the
    source's manifest (split=train). Default: the images of the source."""
    preselect: int = 8
    """Of those, so many that are nearest to the target in a feature network are tried."""
    label: str | None = None
    """Name of the target's labels, if it has any. Default: that of the model."""
    mask: str | None = None
    """Label of the target that marks what counts, such as a field of view."""
    source_mask: str | None = None
    """The same of the source."""
    style: StyleOptions = field(default_factory=StyleOptions)
    search: SearchConfig = field(default_factory=SearchConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    source_images: SourceFilter = field(default_factory=SourceFilter)
    run: TrainRunConfig = field(default_factory=TrainRunConfig)

    def __post_init__(self) -> None:
        require(self.preselect >= 1, f"preselect must be >= 1; got {self.preselect}.")


@dataclass(frozen=True, kw_only=True)
class SearchedTraining:
    """Search the settings of a training. All options of that training are given as for it; --space says which of its
    fields are searched. Each trial trains with one worker; --workers trials run side by side."""

    training: Any
    score_model: str | None = None
    """Model of the source that is trial 0, and tells what the source looks like. Default: --initial,
    or the --model of generators."""
    score_target: str | None = None
    """Of supervised trainings: collection on which trials are scored. Default: their own validation images."""
    score_mask: str | None = None
    """Label of the target that marks what counts in scores."""
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass(frozen=True, kw_only=True)
class TuneSupervisedConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: SupervisedConfig


@dataclass(frozen=True, kw_only=True)
class TuneDannConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: DannConfig


@dataclass(frozen=True, kw_only=True)
class TuneOutputAdversaryConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: OutputAdversaryConfig


@dataclass(frozen=True, kw_only=True)
class TuneEntropyConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: EntropyConfig


@dataclass(frozen=True, kw_only=True)
class TuneDiscrepancyConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: DiscrepancyConfig


@dataclass(frozen=True, kw_only=True)
class TuneMeanTeacherConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: MeanTeacherConfig


@dataclass(frozen=True, kw_only=True)
class TuneCycleGanConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: CycleGanConfig


@dataclass(frozen=True, kw_only=True)
class TuneDritConfig(SearchedTraining):
    __doc__ = SearchedTraining.__doc__
    training: DritConfig


TUNED: dict[str, type[SearchedTraining]] = {
    "supervised": TuneSupervisedConfig,
    "dann": TuneDannConfig,
    "output-adversary": TuneOutputAdversaryConfig,
    "entropy": TuneEntropyConfig,
    "classifier-discrepancy": TuneDiscrepancyConfig,
    "mean-teacher": TuneMeanTeacherConfig,
    "cyclegan": TuneCycleGanConfig,
    "drit": TuneDritConfig,
}
"""Searches of trainings, by the name of the training."""
