"""What comes from others runs nothing, and reads and writes nothing beside its place; secrets are told to nobody."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from raydom.cli import main, parse
from raydom.config.secrets import redacted
from raydom.errors import ConfigError, DataError
from raydom.networks.pretrained import _read
from raydom.storage.collection import open_collection, open_levels
from raydom.storage.zarr_images import list_labels, read_multiscale

ROOT = Path(__file__).resolve().parents[2]
KEY = "AKIA" + "ABCDEFGH" + "12345678"

# A call, and what makes it harmless: a keyword with its value, or the only files that may make it.
CALLS = {
    "pickle.load": None,
    "pickle.loads": None,
    "joblib.load": None,
    "yaml.load": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "marshal.loads": None,
    "shelve.open": None,
    "os.system": None,
    "eval": None,
    "exec": None,
    "shutil.unpack_archive": None,
    "tarfile.open": None,
    "zipfile.ZipFile": {"raydom/cluster/package.py"},  # writes one
    "cloudpickle.loads": {"raydom/cluster/search.py", "raydom/cluster/train.py"},  # of their own driver
    "ray.cloudpickle.loads": {"raydom/cluster/search.py", "raydom/cluster/train.py"},
    "torch.load": ("weights_only", True),
}  # fmt: skip
NEVER = (("allow_pickle", True), ("shell", True), ("autoescape", False), ("weights_only", False), ("verify", False))


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def unsafe_calls(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        harmless = CALLS.get(name, set())
        is_bad = name in CALLS and (
            harmless is None
            or (isinstance(harmless, tuple) and given.get(harmless[0]) is not harmless[1])
            or (isinstance(harmless, set) and path.relative_to(ROOT).as_posix() not in harmless)
        )
        is_bad |= any(given.get(keyword) is value for keyword, value in NEVER)
        is_bad |= name.endswith(("jinja2.Environment", "jinja2.Template")) and given.get("autoescape") is not True
        if is_bad:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    return found


def test_nothing_in_the_package_unpickles_evaluates_or_unpacks() -> None:
    files = [*(ROOT / "raydom").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    assert [call for path in files for call in unsafe_calls(path)] == []


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_weights_that_are_more_than_tensors_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Bomb(tmp_path / "mark")}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=r"weights\.pt: no state dict can be read"):
        _read(str(tmp_path / "weights.pt"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("filters", "compressor"),
    [
        ([{"id": "pickle"}], None),
        ([{"id": "vlen-utf8"}, {"id": "pickle"}], None),
        ([{"id": "vlen-utf8"}], {"id": "pickle"}),
    ],
)
def test_pickles_in_a_zarr_made_elsewhere_are_not_run(tmp_path: Path, filters: Any, compressor: Any) -> None:
    array = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "|O", "fill_value": "", "order": "C"}
    _zarr_of_another(tmp_path / "i.zarr", "0", array | {"filters": filters, "compressor": compressor})
    (tmp_path / "i.zarr/0/0.0").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(DataError):
        open_levels(str(tmp_path / "i.zarr")).read(None, 0)
    assert not (tmp_path / "mark").exists()


def _zarr_of_another(group: Path, path: str, array: dict[str, Any]) -> None:
    (group / "0").mkdir(parents=True)
    (group / ".zgroup").write_text('{"zarr_format": 2}')
    (group / "0/.zarray").write_text(json.dumps(array))
    axes = [{"name": name, "type": "space"} for name in "yx"]
    levels = [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}]
    multiscale = {"version": "0.4", "axes": axes, "datasets": levels}
    (group / ".zattrs").write_text(json.dumps({"multiscales": [multiscale]}))


def test_an_image_made_elsewhere_cannot_name_arrays_beside_it(tmp_path: Path) -> None:
    _zarr_of_another(tmp_path / "i.zarr", "../secret.zarr/0", {})
    with pytest.raises(DataError, match=r"the path '\.\./secret\.zarr/0' leads out"):
        read_multiscale(str(tmp_path / "i.zarr"))
    (tmp_path / "i.zarr/labels").mkdir()
    (tmp_path / "i.zarr/labels/.zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "i.zarr/labels/.zattrs").write_text('{"labels": ["../../secret.zarr"]}')
    with pytest.raises(DataError, match=r"the path '\.\./\.\./secret\.zarr' leads out"):
        list_labels(str(tmp_path / "i.zarr"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_id", "../../elsewhere"),
        ("image_id", "a/b"),
        ("image_id", ".."),
        ("image_id", "a\\b"),
        ("uri", "../other/images/a.zarr"),
        ("uri", "images/../../a.zarr"),
        ("labels", ["../../../other"]),
        ("labels", ["/etc"]),
    ],
)
def test_a_manifest_cannot_lead_out_of_its_collection(
    tmp_path: Path, make_collection: Any, column: str, value: Any
) -> None:
    pixels = np.zeros((1, 8, 8), np.uint8)
    folder = make_collection("c", {"one": pixels, "two": pixels}).uri
    manifest = Path(folder) / "images.parquet"
    table = pq.read_table(manifest)
    at = table.column_names.index(column)
    values = [table[column][0].as_py(), value]
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.types[at])), manifest)
    with pytest.raises(DataError, match=rf"the {column.rstrip('s')} .* leads out of the folder"):
        open_collection(folder)
    assert (
        main(["segment", "--collection", folder, "--model", "threshold:1", "--out", str(tmp_path / "o"), "--serial"])
        == 2
    )


def test_images_in_an_archive_are_ingested_under_safe_names_within_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = io.BytesIO()
    tifffile.imwrite(image, np.arange(64, dtype=np.uint8).reshape(8, 8))
    names = ("good.tif", "../../evil.tif", "/etc/abs.tif", "sub/../../worse.tif")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in names:
            archive.writestr(name, image.getvalue())
    monkeypatch.chdir(tmp_path)
    for name in ("*.tif", *names):
        main(["ingest", f"zip://{name}::{tmp_path}/images.zip", "--out", "deep/down/out", "--quiet"])
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {"images.zip", "deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"down"}
    assert {path.name for path in (tmp_path / "deep/down").iterdir()} == {"out"}
    found = open_collection("deep/down/out")
    assert {"good", "evil", "worse"} == {*found.table["image_id"].to_pylist()}
    assert all(np.array_equal(image.numpy()[0].ravel(), np.arange(64)) for image in found)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"collection: !!python/object/apply:os.mkdir ['{tmp_path}/mark']\n")
    with pytest.raises((SystemExit, ConfigError)):
        parse("info", ["--config", str(tmp_path / "x.yaml")])
    assert not (tmp_path / "mark").exists()


SECRETS = [
    "s3://me:hunter2@bucket/x",
    "az://c/x?sv=1&sig=hunter2%3D",
    f"s3://{KEY}/x",
    "https://host/x.tif?X-Amz-Signature=hunter2",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_setting_with_a_secret_is_refused_before_it_is_kept_and_without_telling_it(
    secret: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text(f"source: [{secret!r}]\nout: {tmp_path}/out\n")
    submitted = ["submit", "info", secret]
    for words, told in (
        (["ingest", secret, "--out", str(tmp_path / "out")], "source (word 1) holds"),
        (["ingest", "--config", str(tmp_path / "x.yaml")], "source (word 1) holds"),
        (submitted, "collection holds"),
    ):
        assert main(words) == 2
        out = capsys.readouterr()
        assert told in out.err and "hunter2" not in out.err + out.out and KEY not in out.err + out.out
    assert not (tmp_path / "out").exists()
    assert "hunter2" not in redacted(secret) and KEY not in redacted(secret)


def test_ordinary_addresses_are_no_secrets() -> None:
    words = ["s3://bucket/a@b/c", "https://host:8000/x?signal=3", "a:b", "plate=A1:B2", "package.module:function"]
    assert [redacted(word) for word in words] == words
