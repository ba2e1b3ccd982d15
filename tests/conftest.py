"""Fixtures shared by all tests: the folder of real images, and one Ray for the whole session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images; tests that need it are skipped without it."""
    root = os.environ.get("RAYDOM_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs real images: set RAYDOM_DATA to their folder")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def ray_session():
    """One embedded Ray for all tests: two CPUs, its own folder, ended with the session."""
    import ray

    from raydom.config import RunConfig
    from raydom.cluster.session import ray_session as start

    with tempfile.TemporaryDirectory(prefix="rd-") as folder:
        os.environ.pop("RAY_ADDRESS", None)
        with start(RunConfig(quiet=True), num_cpus=2, temp_dir=folder):
            yield ray
