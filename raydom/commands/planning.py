"""What the command is told that forecasts what a job takes and costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config import require

PLANNED = ("stylize", "segment", "neurons segment")
"""Commands that can be planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Tell what a job reads, writes, takes and costs before it is run; a pilot does a few of its blocks for real, in a
    scratch output that is removed again."""

    job: tuple[str, ...] = field(metadata={"rest": True})
    """The command with its options, as it would be given here: segment --collection ... Its options and these may stand
    in any order. The pilot runs where these say (--address, --serial)."""
    pilot: int = 4
    """Blocks that are done for real, spread over the images; 0: none, and so no times."""
    prices: str | None = None
    """YAML file of machines and prices, such as jobs/prices/aws.yaml. Default: times only, on machines like this."""
    sizes: tuple[int, ...] = (1, 4, 16, 64)
    """Cluster sizes: numbers of machines (without --prices: of workers)."""
    deadline: float | None = None
    """Hours that the job may take; the cheapest cluster that meets them is told."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        require(self.pilot >= 0, f"pilot must be >= 0; got {self.pilot}.")
        require(len(self.sizes) > 0 and min(self.sizes) >= 1, f"sizes must be numbers >= 1; got {list(self.sizes)}.")
        require(self.deadline is None or self.deadline > 0, f"deadline must be > 0 hours; got {self.deadline}.")
        require(
            self.deadline is None or self.pilot > 0,
            "--deadline needs times, and --pilot 0 measures none. Leave one of them out.",
        )


def why_not_planned(name: str) -> str:
    """Why a command is none of those that can be planned, and what to do."""
    known = ", ".join(PLANNED)
    if name == "compare":
        return (
            "compare is many segmentations: plan one of them (raydom plan segment --collection TARGET --model ... "
            "--method ...) for each model and style method, and add."
        )
    if name.startswith(("train", "tune")):
        return (
            f"raydom {name} is no job of blocks: its time is its steps x the seconds a step, which its progress shows "
            "after the first steps. Run it with a small --steps first, and multiply."
        )
    return f"raydom {name} is no job of blocks, so there is nothing to forecast. These can be planned: {known}."
