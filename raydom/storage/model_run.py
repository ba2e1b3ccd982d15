"""A model run: the folder that a training leaves and inference opens.

``plan.json`` is written first and says what the training is; ``weights.safetensors``, ``config.json`` and
``metrics.parquet`` follow at its end; ``complete.json``, written last, makes the run valid (object stores have no
rename). Checkpoints lie in ``checkpoints``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raydom.config import ForestSpec, GeneratorSpec, ModelSpec, from_dict, to_dict
from raydom.errors import ConfigError, DataError
from raydom.storage import files

PLAN, WEIGHTS, CONFIG, METRICS, MARKER = (
    "plan.json", "weights.safetensors", "config.json", "metrics.parquet", "complete.json"
)  # fmt: skip
CHECKPOINTS = "checkpoints"
Spec = ModelSpec | GeneratorSpec | ForestSpec
S = TypeVar("S", ModelSpec, GeneratorSpec, ForestSpec, Spec)


@dataclass(frozen=True)
class ModelRun(Generic[S]):
    """A finished training: of a segmentation model, of generators between domains, or of a forest for borders."""

    uri: str
    spec: S
    training: Mapping[str, Any]
    """What was trained: the configuration, the images, the best step and its score."""
    versions: Mapping[str, str]
    content_hash: str
    """SHA-256 of weights and spec: equal exactly when the model is."""
    stored_spec: Mapping[str, Any]
    """The spec as it was written; fields that were added later are not in it."""

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters and buffers of the network by name.

        Raises:
            DataError: If they are not those that the run was completed with.
        """
        content = _read(self.uri, WEIGHTS)
        if _content_hash(content, self.stored_spec) != self.content_hash:
            raise DataError(f"{self.uri}: {WEIGHTS} was changed after the training. Restore it, or train again.")
        try:
            return dict(load(content))
        except SafetensorError as error:
            raise DataError(f"{self.uri}: {WEIGHTS} cannot be read ({error}). Restore it, or train again.") from error

    @cached_property
    def metrics(self) -> pa.Table:
        """Step, losses by ``phase.loss``, learning rate, seconds, and the validation score where there was one."""
        return pq.read_table(io.BytesIO(_read(self.uri, METRICS)))


def begin_model_run(uri: str, plan: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> ModelRun[Spec] | None:
    """Claim a folder for a training.

    Args:
        uri: The run folder; it may be new, or hold the same training, finished or not.
        plan: All that the result depends on, as plain JSON values.
        usual: What options have in it that are not given. A run that began before there was an option goes on where it
            has just that.

    Returns:
        The finished run, if this very training is finished already; else None.

    Raises:
        ConfigError: If the folder holds another training (naming the settings that differ), or anything else.
    """
    plan = json.loads(json.dumps(plan))
    path = files.join(uri, PLAN)
    if not files.is_file(path):
        if files.list_files(uri) or files.list_folders(uri):
            raise ConfigError(f"{uri} holds something else than a model run. Choose another --out.")
        files.write_json(path, plan)
        return None
    changes = _differences(files.read_json(path), plan, usual or {})
    if changes:
        raise ConfigError(
            f"{uri} holds another training. It differs in: {'; '.join(changes)}. "
            "Give those settings again to continue it, or choose another --out."
        )
    return _opened(uri) if files.is_file(files.join(uri, MARKER)) else None


def withdraw_model_run(uri: str) -> None:
    """Give back a folder that was claimed for a training of which there is nothing yet."""
    path = files.join(uri, PLAN)
    if files.list_files(uri) == [path] and not files.list_folders(uri):
        files.remove(path)


def write_model_run(
    uri: str,
    spec: S,
    weights: Mapping[str, np.ndarray],
    training: Mapping[str, Any],
    rows: Sequence[Mapping[str, float | int]] = (),
) -> ModelRun[S]:
    """Write a finished training; its marker comes last.

    Args:
        uri: The run folder.
        spec: What inference must know.
        weights: Parameters and buffers of the network by name.
        training: What was trained, as plain JSON values.
        rows: The table of metrics; rows may lack columns.
    """
    content = save({name: np.array(value, order="C") for name, value in weights.items()})
    files.write_bytes_atomic(files.join(uri, WEIGHTS), content)
    versions = {name: version(name) for name in ("raydom", "torch", "ray", "numpy", "zarr")}
    files.write_json(files.join(uri, CONFIG), {"spec": to_dict(spec), "training": training, "versions": versions})
    files.write_bytes_atomic(files.join(uri, METRICS), _parquet(rows))
    files.write_json(files.join(uri, MARKER), {"content_hash": _content_hash(content, to_dict(spec))})
    return _opened(uri)


def open_model_run(uri: str) -> ModelRun[ModelSpec]:
    """Open a finished training of a segmentation model.

    Raises:
        ConfigError: If the training is of something else.
        DataError: If there is none, it is not finished, or its files are damaged.
    """
    run = _opened(uri)
    if isinstance(run.spec, ModelSpec):
        return run
    if isinstance(run.spec, ForestSpec):
        raise ConfigError(
            f"{run.uri} is a forest that judges the borders of superpixels. A segmentation model is needed here: "
            "give a run of `raydom train supervised`, and this one to `raydom neurons segment --forest`."
        )
    raise ConfigError(
        f"{run.uri} is a run of generators ({run.spec.kind}), which make images look like those of another domain. A "
        f"segmentation model is needed here: give a run of `raydom train supervised`, and this one with --method "
        f"{run.spec.kind} --generator {uri}."
    )


def open_generator_run(uri: str) -> ModelRun[GeneratorSpec]:
    """Open a finished training of generators between domains.

    Raises:
        ConfigError: If the training is of something else.
        DataError: If there is none, it is not finished, or its files are damaged.
    """
    run = _opened(uri)
    if isinstance(run.spec, GeneratorSpec):
        return run
    raise ConfigError(
        f"{run.uri} is a run of {_described(run.spec)}. --generator needs a run that makes "
        f"images look like those of another domain, such as one of `raydom train cyclegan`; this one is for "
        f"{'--forest' if isinstance(run.spec, ForestSpec) else '--model'}."
    )


def open_forest_run(uri: str) -> ModelRun[ForestSpec]:
    """Open a finished training of a forest that judges the borders of superpixels.

    Raises:
        ConfigError: If the training is of something else.
        DataError: If there is none, it is not finished, or its files are damaged.
    """
    run = _opened(uri, "raydom neurons train")
    if isinstance(run.spec, ForestSpec):
        return run
    raise ConfigError(f"{run.uri} is a run of {_described(run.spec)}. --forest needs a run of `raydom neurons train`.")


def _described(spec: Spec) -> str:
    if isinstance(spec, ModelSpec):
        return f"a segmentation model ({spec.network.name})"
    return "a forest that judges borders" if isinstance(spec, ForestSpec) else f"generators ({spec.kind})"


def _opened(uri: str, command: str = "raydom train supervised") -> ModelRun[Any]:
    uri = files.absolute(uri)
    marker = files.join(uri, MARKER)
    if not files.is_file(marker):
        if files.is_file(files.join(uri, PLAN)):
            raise DataError(
                f"{uri}: this training has not finished. Run the same command again: it continues "
                "at its last checkpoint."
            )
        raise DataError(f"{uri}: there is no model run. Make one with `{command} --out {uri}`.")
    try:
        config = files.read_json(files.join(uri, CONFIG))
        stored = config["spec"]
        kind: type[Any] = GeneratorSpec if "kind" in stored else ForestSpec if "forest" in stored else ModelSpec
        spec: Spec = from_dict(kind, stored)
        content_hash = files.read_json(marker)["content_hash"]
        return ModelRun(uri, spec, config["training"], config["versions"], content_hash, config["spec"])
    except (FileNotFoundError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{uri}: {CONFIG} cannot be used ({error}). Restore it, or train again.") from error


def _read(uri: str, name: str) -> bytes:
    try:
        return files.read_bytes(files.join(uri, name))
    except FileNotFoundError as error:
        raise DataError(f"{uri}: {name} is missing. Restore it, or train again.") from error


def _content_hash(weights: bytes, spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(weights + json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _parquet(rows: Sequence[Mapping[str, float | int]]) -> bytes:
    names = ["step", *sorted({name for row in rows for name in row} - {"step"})]
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _differences(old: Any, new: Any, usual: Any, name: str = "") -> list[str]:
    """``name: old -> new`` for every plain value that differs; one that is not there is like one that is empty or
    usual."""
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{name}." if name else ""
        inner = usual if isinstance(usual, dict) else {}
        return [
            change
            for key in sorted({*old, *new})
            if key in old or key not in inner or new[key] != inner[key]
            for change in _differences(old.get(key), new.get(key), inner.get(key), prefix + key)
        ]
    same = old == new or (old in (None, []) and new in (None, []))
    return [] if same else [f"{name}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
