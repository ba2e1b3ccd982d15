"""Joins a Ray cluster, or starts an embedded Ray for the time of a command."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Ray would otherwise start each worker through `uv run` when the driver was: slow, and another environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
# What was given to a machine that is gone without a word is given to another after 100 s; Ray would wait for 7 min.
# Its nodes do not bear to be asked more often than once in 60 s.
os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "70000")
os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "30000")

import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem

from raydom.cluster import messages
from raydom.cluster.autoscaler import read_capacity
from raydom.cluster.capacity import check_capacity, needs_of, workers_at_most, workers_now
from raydom.config import ClusterConfig
from raydom.errors import ClusterError, ConfigError
from raydom.storage import files, stores

EMBEDDED_STORE_BYTES = 512 * 2**20
"""Object store of an embedded Ray: pixels never travel through it."""


@contextmanager
def ray_session(
    run: ClusterConfig, *, num_cpus: int | None = None, num_gpus: int | None = None, temp_dir: str | None = None
) -> Iterator[None]:
    """A Ray to work on, for the time of a ``with`` block.

    A Ray that this process already uses is used further. Else ``run.address`` or RAY_ADDRESS is joined. Else an
    embedded Ray is started, and ended with the block.

    Args:
        run: Where to run.
        num_cpus: CPUs that an embedded Ray offers. Default: those of the machine.
        num_gpus: GPUs that it offers. Default: those of the machine.
        temp_dir: Folder for the sessions of an embedded Ray; keep its path short.

    Raises:
        ConfigError: When the cluster cannot be reached, or has no node that a worker fits on and will never have one.
        ClusterError: When Ray cannot be started.
    """
    if ray.is_initialized():
        check_capacity(read_capacity(), needs_of(run))
        yield
        return
    logging.getLogger("ray").setLevel(logging.WARNING)
    address = run.address or os.environ.get("RAY_ADDRESS")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Each pool of actors would otherwise print an error about restarts (ray-project/ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        if address:
            with _silent_stderr():  # Ray's native part would announce that level
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        else:
            # Workers import your own methods from where you stand.
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
            with _silent_stderr():
                ray.init(
                    address="local",  # never another Ray that happens to be on this machine
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    object_store_memory=EMBEDDED_STORE_BYTES,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=temp_dir,
                )
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r}: {error} Check --address and RAY_ADDRESS, or leave both out to "
            "run on this machine."
        ) from error
    except Exception as error:  # Ray raises nothing more special when it cannot start
        raise ClusterError(
            f"Ray could not be started here: {error} The machine may be overloaded, or its temporary folder full; try "
            "again, or compute without Ray by --serial."
        ) from error
    messages.in_a_line()
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in its place
    try:
        check_capacity(read_capacity(), needs_of(run))
        yield
    finally:
        ray.shutdown()


def num_workers(run: ClusterConfig) -> int:
    """As many workers as were asked for, else as many as the cluster will have room for at most, as far as is known."""
    if run.workers is not None:
        return run.workers
    capacity, needs = read_capacity(), needs_of(run)
    return max(1, workers_at_most(capacity, needs) or workers_now(capacity, needs))


def ray_storage(uri: str) -> dict[str, Any]:
    """Where Ray Train and Tune keep what is theirs; URLs are opened as all others are, with the same keys."""
    if not files.is_url(uri):
        return {"storage_path": uri}
    fs, path = stores.file_system(uri, steadied=False)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what native code writes to the standard error stream; exceptions pass as ever."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a file descriptor is wanted
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
