"""What travels with a job."""

import subprocess
import zipfile

import pytest

from raydom.cluster import package
from raydom.cluster.package import pack_folder
from raydom.errors import ConfigError


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_of(archive):
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


WANTED = ("job.yaml", "my_methods.py", "styles/one.tif", "mine/data/table.csv")
UNWANTED = (
    "data/a.tif", "results/x.csv", ".venv/bin/python", ".git/config", "mine/__pycache__/m.pyc", "img.zarr/zarr.json",
    ".env", "keys/cluster.pem", ".aws/credentials", "mine/.ssh/id_rsa", "auth_token",
)  # fmt: skip


def test_images_environments_and_secrets_stay_at_home(tmp_path):
    write(tmp_path / "here", *WANTED, *UNWANTED, "big.ckpt", "old/notes.txt")
    packed = pack_folder(tmp_path / "here", tmp_path / "a.zip", ["*.ckpt", "/old"])
    assert names_of(packed.path) == set(WANTED) and packed.num_files == len(WANTED)


def test_what_git_ignores_stays_at_home_and_a_configuration_travels_all_the_same(tmp_path):
    write(tmp_path, "job.py", "out/log.txt", "data/job.yaml")
    (tmp_path / ".gitignore").write_text("out/\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with_config = {"data/job.yaml": tmp_path / "data/job.yaml"}
    (tmp_path / "elsewhere").mkdir()
    packed = pack_folder(tmp_path, tmp_path / "elsewhere/a.zip", ["elsewhere"], with_config)
    assert names_of(packed.path) == {".gitignore", "job.py", "data/job.yaml"}


def test_equal_folders_are_equal_packages(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, *WANTED)
        pack_folder(tmp_path / name, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MAX_BYTES", 1000)
    write(tmp_path / "here", *WANTED)
    (tmp_path / "here/model.bin").write_bytes(b"0" * 2**20)
    with pytest.raises(ConfigError, match=r"5 files of 1 MiB.*largest: model\.bin \(1\.0 MiB\).*--exclude PATTERN"):
        pack_folder(tmp_path / "here", tmp_path / "a.zip")
