"""How neurons are segmented: membranes, superpixels, a forest that judges their borders, and the multicut."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config.base import require

SOLVERS = ("gaec", "kernighan-lin", "fusion", "exact")
CALIBRATIONS = ("none", "isotonic", "sigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceConfig:
    """What tells of membranes: of a raw image, dark ridges (Frangi filter); and the maps that describe edges."""

    frangi_sigmas_px: tuple[float, ...] = (2.0, 4.0)
    """Half widths of the ridges that the filter answers to, px."""
    frangi_beta: float = 0.5
    """How much curvature along a ridge, over that across it, is allowed."""
    frangi_gamma: float = 0.09
    """Curvature (times the square of the half width, of intensities from 0 to 1) from which a ridge counts."""
    gradient_sigmas_px: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Scales of the gradient magnitudes among the maps, px."""
    planes: bool = False
    """Of a volume: plane by plane, for sections much thicker than a pixel; else ridges are sheets."""

    def __post_init__(self) -> None:
        for name in ("frangi_sigmas_px", "gradient_sigmas_px"):
            sigmas = getattr(self, name)
            require(bool(sigmas) and min(sigmas) > 0, f"{name} are one or more numbers above 0; got {sigmas}.")
        for name in ("frangi_beta", "frangi_gamma"):
            require(getattr(self, name) > 0, f"{name} must be > 0; got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperpixelConfig:
    """Over-segmentation by a seeded watershed."""

    cell_px: int = 512
    """Superpixels are made in squares of this side, each with ``halo_px`` around it, which lie the same in an image
    whatever the blocks; the block size is a multiple of it. (Of a volume, all planes.)"""
    halo_px: int = 64
    """How far beyond its own pixels a square looks, px; best no less than the diameter of a superpixel."""
    threshold: float = 0.5
    """Boundary evidence from which a pixel is membrane, for the distances that seeds come from."""
    sigma_px: float = 2.0
    """Smoothing of the distances, whose maxima are the seeds, px."""
    boundary_share: float = 0.8
    """Weight of the boundary in the height that the watershed floods; the rest is closeness to a membrane."""
    min_size_px: int = 25
    """Smaller superpixels are given to their neighbours."""
    planes: bool = False
    """Of a volume: plane by plane, for sections much thicker than a pixel."""
    anisotropy: float = 1.0
    """Distance of two planes of a volume, in pixels of a plane."""

    def __post_init__(self) -> None:
        require(self.cell_px >= 32 and self.cell_px % 32 == 0, f"cell_px must be a multiple of 32; got {self.cell_px}.")
        require(self.halo_px >= 8, f"halo_px must be >= 8, to compare what two squares see; got {self.halo_px}.")
        require(0 < self.threshold < 1, f"threshold must be between 0 and 1; got {self.threshold}.")
        require(self.sigma_px >= 0, f"sigma_px must be >= 0; got {self.sigma_px}.")
        require(0 <= self.boundary_share <= 1, f"boundary_share must be from 0 to 1; got {self.boundary_share}.")
        require(self.min_size_px >= 1, f"min_size_px must be >= 1; got {self.min_size_px}.")
        require(self.anisotropy > 0, f"anisotropy must be > 0; got {self.anisotropy}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestConfig:
    """The random forest that tells how likely the border of two superpixels is a membrane."""

    trees: int = 200
    """Number of trees."""
    min_leaf: int = 2
    """Fewest training edges in a leaf."""
    max_depth: int | None = None
    """Greatest depth of a tree. Default: no limit."""
    calibration: str = "none"
    """How votes become probabilities: none, isotonic or sigmoid, fitted to edges that a tree was not trained on."""
    autocontext: int = 0
    """Rounds of auto-context: further forests that also see what the one before said of an edge and of those around."""
    seed: int = 0
    """Of the trees."""

    def __post_init__(self) -> None:
        require(self.trees >= 1, f"trees must be >= 1; got {self.trees}.")
        require(self.min_leaf >= 1, f"min_leaf must be >= 1; got {self.min_leaf}.")
        require(self.max_depth is None or self.max_depth >= 1, f"max_depth must be >= 1; got {self.max_depth}.")
        require(
            self.calibration in CALIBRATIONS,
            f"calibration is {', '.join(CALIBRATIONS)}; got {self.calibration!r}.",
        )
        require(self.autocontext >= 0, f"autocontext must be >= 0; got {self.autocontext}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticutConfig:
    """Which borders are cut, so that the cut ones close: minimum-cost multicut."""

    solver: str = "kernighan-lin"
    """gaec (greedy additive edge contraction), kernighan-lin (from it), fusion (moves from there), or exact (an integer
    program, for graphs of a few thousand edges)."""
    beta: float = 0.5
    """Prior probability of a border; more of it cuts more."""
    clip: float = 0.001
    """Probabilities are held within this and one minus this, so that no cost is infinite."""
    size_weights: bool = False
    """Weigh an edge by its length over that of the longest."""
    seed: int = 0
    """Of the fusion moves."""
    time_limit_s: float = 60.0
    """Of the exact solver, which then tells the best cut and the bound that it has, s."""
    max_edges: int = 3_000_000
    """Larger graphs are solved in parts first, whose joined superpixels are one in the rest."""

    def __post_init__(self) -> None:
        require(self.solver in SOLVERS, f"solver is {', '.join(SOLVERS)}; got {self.solver!r}.")
        require(0 < self.beta < 1, f"beta must be between 0 and 1; got {self.beta}.")
        require(0 < self.clip < 0.5, f"clip must be between 0 and 0.5; got {self.clip}.")
        require(self.time_limit_s > 0, f"time_limit_s must be > 0; got {self.time_limit_s}.")
        require(self.max_edges >= 1, f"max_edges must be >= 1; got {self.max_edges}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronConfig:
    """The graph of an image's superpixels: what a forest is trained on, and asked about again."""

    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    superpixels: SuperpixelConfig = field(default_factory=SuperpixelConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestSpec:
    """What a trained forest must be asked with."""

    neurons: NeuronConfig
    forest: ForestConfig
    features: tuple[str, ...]
    """Names of what it judges an edge by."""
    boundary: str
    """What tells of membranes: frangi, of the raw image, or probability, of a model."""
    planes: bool
    """Whether it was trained on single planes, not on volumes."""
    pixel_size_um: float | None = None
    """Of the images that it was trained on, um."""
    inside: bool = False
    """Whether the probabilities were of the inside of neurons."""
    channel: int = 0
    """Of the images that it was trained on, counted from 0."""
