"""What a training is before its first step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from raydom.config import TrainConfig, TrainRunConfig
from raydom.training.loop import Training


class TrainingPlan(ABC):
    """A training of any algorithm, checked and fixed. It is pickled and sent to every worker, so it is small."""

    config: Any
    """Of the command, with ``out``, ``train`` and ``run``."""
    spec: Any
    """What inference must know of what comes out: a ``ModelSpec`` or a ``GeneratorSpec``."""
    num_steps: int

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is called while it goes on."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""

    @abstractmethod
    def assemble(self, device: torch.device) -> Training:
        """What the loop needs, in the process that trains."""

    @property
    def out(self) -> str:
        out: str = self.config.out
        return out

    @property
    def train(self) -> TrainConfig:
        train: TrainConfig = self.config.train
        return train

    @property
    def run(self) -> TrainRunConfig:
        run: TrainRunConfig = self.config.run
        return run

    def resources(self) -> dict[str, Any]:
        """What the last bits of the result depend on."""
        return {
            "workers": self.run.workers or 1,
            "threads": max(1, int(self.run.cpus_per_worker)),
            "device": "cuda" if self.run.gpus_per_worker > 0 else "cpu",
        }
