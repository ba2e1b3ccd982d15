"""Where the images of several domains are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raydom.config import ImageFilter, TrainRunConfig, require
from raydom.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFilter(ImageFilter):
    """Which images of the target are meant; without a condition, all."""


@dataclass(frozen=True, kw_only=True)
class DomainsConfig:
    """Where the images of a source and of a target are."""

    source: str | None = None
    """Collection of the source, domain 0."""
    target: str | None = None
    """Collection of the target, domain 1. Its images of split test are not used."""
    collection: str | None = None
    """One collection of both instead, told apart by its column domain."""
    source_domain: str | None = None
    """With --collection: the domain that is the source."""
    target_domain: str | None = None
    """With --collection: the domain that is the target."""
    out: str
    """Folder of the model run."""
    images: ImageFilter = field(default_factory=ImageFilter)
    target_images: TargetFilter = field(default_factory=TargetFilter)
    sample_every: int | None = None
    """Draw what is made now every so many steps, as pictures in OUT/samples."""
    run: TrainRunConfig = field(default_factory=lambda: TrainRunConfig(workers=1))

    def check_domains(self) -> None:
        """Refuse what tells no domains.

        Raises:
            ConfigError: For too much or too little.
        """
        require(
            self.sample_every is None or self.sample_every >= 1, f"sample_every must be >= 1; got {self.sample_every}."
        )
        if self.collection is not None:
            require(
                self.source is None and self.target is None,
                "give --source and --target, or --collection with --source-domain and --target-domain; not both.",
            )
            require(
                self.images.domain is None and self.target_images.domain is None,
                "--domain and --target-images.domain have no effect with --collection: choose its domains by "
                "--source-domain and --target-domain.",
            )
            return
        require(
            self.source is not None and self.target is not None,
            "which domains? Give --source C1 --target C2, or --collection C with --source-domain and --target-domain.",
        )
        require(
            self.source_domain is None and self.target_domain is None,
            "--source-domain and --target-domain choose from one --collection; of two, choose by --domain and "
            "--target-images.domain.",
        )

    def pair(self) -> tuple[tuple[str, str, ImageFilter], tuple[str, str, ImageFilter]]:
        """Name, collection and images of the source and of the target.

        Raises:
            ConfigError: If one collection holds both and it is not said which is which.
        """
        self.check_domains()
        if self.collection is None:
            return ("source", str(self.source), self.images), ("target", str(self.target), self.target_images)
        if self.source_domain is None or self.target_domain is None or self.source_domain == self.target_domain:
            raise ConfigError(
                f"--collection {self.collection}: give --source-domain and --target-domain, two values of its column "
                "domain (raydom info tells which there are)."
            )
        source = replace(self.images, domain=self.source_domain)
        target = replace(self.target_images, domain=self.target_domain)
        return (self.source_domain, self.collection, source), (self.target_domain, self.collection, target)
