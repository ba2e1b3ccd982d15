"""What the commands are told that adapt a segmentation network to a target."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.commands.domains import DomainsConfig
from raydom.commands.supervised import NetworkOptions
from raydom.config import TrainConfig, require


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(NetworkOptions, DomainsConfig):
    """Adaptation of a segmentation network to a target without labels, or with few."""

    initial: str | None = None
    """Model run to begin with, which gives the network too, instead of random weights."""
    pretrain_steps: int = 0
    """Steps at first that learn the labels alone."""
    labelled_target: int = 0
    """So many labelled images of the target are learnt too, drawn by the seed; a step has as many crops of them
    as of the source."""
    reweight: bool = False
    """Draw source images by their likeness to the target, as their intensity statistics tell it."""
    select: str = "last"
    """Which weights the run holds: last, or the best by source (score on the source's validation images), by entropy
    (lowest on the target's, which needs no labels) or by combined (whether what is segmented on the target looks like
    the labels of the source, can be seen in the images, and is the same when they are turned)."""
    select_crops: int = 16
    """With --select combined: how many crops of 256 px of the target are looked at."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.check_domains()
        self.check_network()
        self.check_restyling(self.train.augment)
        require(self.pretrain_steps >= 0, f"pretrain_steps must be >= 0; got {self.pretrain_steps}.")
        require(self.labelled_target >= 0, f"labelled_target must be >= 0; got {self.labelled_target}.")
        self._check_selection()
        require(
            self.initial is None or self.weights is None,
            f"--weights {self.weights} has no effect with --initial, which gives all weights. Leave one of them out.",
        )

    def _check_selection(self) -> None:
        require(
            self.select in ("last", "source", "entropy", "combined"),
            f"select is last, source, entropy or combined; got {self.select!r}.",
        )
        require(
            self.select != "last" or self.train.patience is None,
            "patience counts validations without a better score: give --select combined, source or entropy with it.",
        )
        if self.select == "entropy":
            _check_classes(self, "the entropy of the target is that of classes")
        require(
            self.select != "combined" or self.network_config(in_channels=1).output != "objects",
            "combined looks at what is told of each pixel, and output objects is a list: give --select source.",
        )
        require(self.select_crops >= 1, f"select_crops must be >= 1; got {self.select_crops}.")
        require(
            self.select == "combined" or self.select_crops == AdaptationConfig.select_crops,
            f"--select-crops {self.select_crops} has no effect on --select {self.select}. Leave it out, or give "
            "--select combined.",
        )


@dataclass(frozen=True, kw_only=True)
class DannConfig(AdaptationConfig):
    """Adapt a U-Net by domain classifiers at its levels, behind a gradient reversal."""

    levels: tuple[str, ...] = field(default=("bottleneck",), metadata={"comma": True})
    """Where the domain classifiers are, with commas between: encoder0 (the finest), encoder1, ..., bottleneck, ...,
    decoder1, decoder0."""
    weight: float = 0.1
    """Of the domain loss."""
    reversal: str = "warm-up"
    """Strength of the reversed gradient: warm-up (from 0 towards 1) or constant (1)."""
    gamma: float = 10.0
    """How fast it warms up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight(self.weight)
        _check_reversal(self.reversal)
        require(self.gamma > 0, f"gamma must be > 0; got {self.gamma}.")
        require(
            self.reversal == "warm-up" or self.gamma == DannConfig.gamma,
            f"--gamma {self.gamma} has no effect with --reversal {self.reversal}, which does not warm up.",
        )


@dataclass(frozen=True, kw_only=True)
class OutputAdversaryConfig(AdaptationConfig):
    """Adapt a network by an adversary on its label maps."""

    weight: float = 0.1
    """Of the adversary's loss."""
    updates: str = "reversal"
    """reversal (one update, the critic's gradient comes back reversed) or alternating (network and critic in turns)."""
    reversal: str = "warm-up"
    """Strength of the reversed gradient: warm-up (from 0 towards 1) or constant (1)."""
    critic_channels: int = 64
    """Of the critic's first convolution."""
    critic_rate: float = 1.0
    """Learning rate of the critic, as a share of the network's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "an adversary judges maps of classes")
        _check_weight(self.weight)
        _check_reversal(self.reversal)
        require(
            self.updates in ("reversal", "alternating"), f"updates are reversal or alternating; got {self.updates!r}."
        )
        require(
            self.updates == "reversal" or self.reversal == OutputAdversaryConfig.reversal,
            f"--reversal {self.reversal} has no effect with --updates {self.updates}, where no gradient is reversed.",
        )
        require(self.critic_channels >= 1, f"critic_channels must be >= 1; got {self.critic_channels}.")
        require(self.critic_rate > 0, f"critic_rate must be > 0; got {self.critic_rate}.")


@dataclass(frozen=True, kw_only=True)
class EntropyConfig(AdaptationConfig):
    """Adapt a network by making it certain of the target."""

    weight: float = 0.01
    """Of the entropy, or of the adversary."""
    mode: str = "direct"
    """direct (the mean entropy of the target's pixels) or adversarial (an adversary on maps of it)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "entropy is that of classes")
        _check_weight(self.weight)
        require(self.mode in ("direct", "adversarial"), f"mode is direct or adversarial; got {self.mode!r}.")


@dataclass(frozen=True, kw_only=True)
class DiscrepancyConfig(AdaptationConfig):
    """Adapt a U-Net by two classifiers that disagree on what is foreign in the target."""

    weight: float = 1.0
    """Of their disagreement."""
    trunk_updates: int = 4
    """Updates of what lies below the classifiers, each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "the classifiers are those of classes")
        _check_weight(self.weight)
        require(self.trunk_updates >= 1, f"trunk_updates must be >= 1; got {self.trunk_updates}.")


@dataclass(frozen=True, kw_only=True)
class MeanTeacherConfig(AdaptationConfig):
    """Adapt a network by what a moving average of itself is confident of on the target."""

    weight: float = 1.0
    """Of what the teacher tells."""
    confidence: float = 0.968
    """Probability from which the teacher is believed."""
    decay: float = 0.99
    """Of the moving average, each step."""
    noise: float = 0.05
    """Standard deviation of the noise that the network sees on the target, in normalised intensities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "a teacher tells classes")
        _check_weight(self.weight)
        require(0.5 <= self.confidence < 1, f"confidence is a probability from 0.5 to below 1; got {self.confidence}.")
        require(0 <= self.decay < 1, f"decay is from 0 to below 1; got {self.decay}.")
        require(self.noise >= 0, f"noise must be >= 0; got {self.noise}.")


def _check_weight(weight: float) -> None:
    require(weight >= 0, f"weight must be >= 0; got {weight}.")


def _check_reversal(reversal: str) -> None:
    require(reversal in ("warm-up", "constant"), f"reversal is warm-up or constant; got {reversal!r}.")


def _check_classes(config: NetworkOptions, why: str) -> None:
    output = config.network_config(in_channels=1).output
    require(output == "classes", f"{why}; got output {output}. Give --output classes and a network of them.")
