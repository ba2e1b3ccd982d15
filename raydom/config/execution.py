"""How images are cut, and where a job runs."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """How an image is cut into blocks."""

    block_size: int = 512
    """Side of the square that a block writes, px; also the output's shard."""
    halo: int | None = None
    """Context read on each side, px. Default: the receptive field of the network."""

    def __post_init__(self) -> None:
        require(
            self.block_size >= 16 and self.block_size % 16 == 0,
            f"block_size must be a multiple of 16 and >= 16; got {self.block_size}.",
        )
        require(self.halo is None or self.halo >= 0, f"halo must be >= 0; got {self.halo}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where a job runs. Nothing here changes the result."""

    address: str | None = None
    """Ray cluster to join (as in ray.init). Default: RAY_ADDRESS, else an embedded Ray for this command."""
    workers: int | None = None
    """Number of workers. Default: as many as the cluster has room for, with all nodes that its autoscaler can start."""
    cpus_per_worker: float = 1.0
    """CPUs of a worker; torch uses as many threads."""
    serial: bool = False
    """Run in this process without Ray: the debugger and the test oracle."""
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.workers is None or self.workers >= 1, f"workers must be >= 1; got {self.workers}.")
        require(self.cpus_per_worker > 0, f"cpus_per_worker must be > 0; got {self.cpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRunConfig(ClusterConfig):
    """Where and on what a training runs."""

    gpus_per_worker: float = 0.0
    """GPUs of a worker, fractions allowed."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)  # super() does not find its class in dataclasses with slots
        require(self.gpus_per_worker >= 0, f"gpus_per_worker must be >= 0; got {self.gpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(TrainRunConfig):
    """Where and how a block job runs."""

    memory_gib: float | None = None
    """Memory that a worker may use for a block, GiB. Default: this machine's, shared by its CPUs."""
    retry_failed: bool = False
    """Run the failed and quarantined blocks of an earlier run again."""

    def __post_init__(self) -> None:
        TrainRunConfig.__post_init__(self)
        require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib must be > 0; got {self.memory_gib}.")
