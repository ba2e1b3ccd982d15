"""What machines and an object store cost, as a file says that its user keeps up to date."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config.base import require


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """A kind of machine that can be rented."""

    name: str
    usd_per_hour: float
    """On demand."""
    spot_usd_per_hour: float | None = None
    """As spot, which may be taken away at any time; None if there is no such price."""
    cpus: float
    gpus: float = 0.0
    memory_gib: float
    speed: float = 1.0
    """How much quicker one of its workers is than the one that the pilot ran on."""
    boot_s: float = 180.0
    """From asking for a machine until Ray runs on it, s."""

    def __post_init__(self) -> None:
        for name in ("usd_per_hour", "cpus", "memory_gib", "speed"):
            value = getattr(self, name)
            require(_is_number(value) and value > 0, f"{self.name}: {name} must be a number > 0; got {value!r}.")
        for name in ("gpus", "boot_s", "spot_usd_per_hour"):
            value = getattr(self, name)
            right = (value is None and name == "spot_usd_per_hour") or (_is_number(value) and value >= 0)
            require(right, f"{self.name}: {name} must be a number >= 0; got {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePrices:
    """What an object store asks for."""

    usd_per_1000_writes: float = 0.0
    usd_per_1000_reads: float = 0.0
    usd_per_gib_month: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitConfig:
    """What more workers do not help against; raydom plan says which of them holds."""

    driver_batches_per_s: float = 100.0
    """Batches of tasks that the driver gives out. Measured: 98 and 126 to a thousand workers at once, on two cores that
    were busy with other things as well (benchmarks/README.md)."""
    store_writes_per_s: float = 3500.0
    """Objects that are written; S3 promises 3,500 a second under a prefix, and more as it learns of the load."""
    receipt_s: float = 10e-6
    """For which the driver is at a receipt, in all; measured: 9.3 s for a million."""

    def __post_init__(self) -> None:
        require(
            self.driver_batches_per_s > 0 and self.store_writes_per_s > 0 and self.receipt_s >= 0,
            "driver_batches_per_s and store_writes_per_s must be > 0, and receipt_s >= 0.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceConfig:
    """A file of prices."""

    date: str = ""
    """Of when they are."""
    head: NodeType | None = None
    """The machine of the driver, which is paid on demand for the whole time."""
    nodes: tuple[NodeType, ...] = ()
    """Of the workers."""
    store: StorePrices = field(default_factory=StorePrices)
    limits: LimitConfig = field(default_factory=LimitConfig)
    spot_extra: float = 0.05
    """Share of the time by which spot machines take longer: blocks that are repeated, machines that are waited for."""

    def __post_init__(self) -> None:
        require(self.spot_extra >= 0, f"spot_extra must be >= 0; got {self.spot_extra}.")
        names = [node.name for node in self.nodes]
        require(len(set(names)) == len(names), f"two nodes have one name: {', '.join(names)}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
