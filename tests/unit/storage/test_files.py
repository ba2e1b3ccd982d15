from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from raydom.errors import DataError
from raydom.storage import files


@pytest.fixture(params=["local", "memory", "file"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        files.remove("memory://test-files")
    return {"local": str(tmp_path), "memory": "memory://test-files", "file": f"file://{tmp_path}"}[request.param]


def test_what_is_written_is_found_read_and_removed(root: str) -> None:
    one, two = files.join(root, "a/one.json"), files.join(root, "a", "two.txt")
    files.write_json(one, {"x": [1, None]})
    files.write_bytes_atomic(two, b"first")
    files.write_bytes_atomic(two, b"second")
    assert files.read_json(one) == {"x": [1, None]}
    assert files.read_bytes(two) == b"second"
    assert files.list_files(files.join(root, "a")) == [one, two]
    assert files.list_files(files.join(root, "a"), ".json") == [one]
    assert files.list_folders(root) == [files.join(root, "a")]
    assert len(files.glob(files.join(root, "**/*.json"))) == 1
    assert files.read_json(files.glob(files.join(root, "*/*.json"))[0]) == {"x": [1, None]}
    with files.local_copy(two) as path:
        assert path.read_bytes() == b"second"
    files.rename(two, f"{two}.old")
    files.rename(two, f"{two}.older")  # gone: nothing happens
    assert files.list_files(files.join(root, "a")) == [one, f"{two}.old"]
    files.remove(files.join(root, "a"))
    assert not files.exists(one)
    assert files.list_files(files.join(root, "a")) == []
    files.remove(files.join(root, "a"))  # nothing there: nothing happens


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    files.write_bytes_atomic(str(target), b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"):  # the system does not say where
        files.write_bytes_atomic(str(target), b"new content")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "a" / "real").mkdir(parents=True)
    (tmp_path / "a" / "real" / "x.json").write_text("1")
    (tmp_path / "a" / "folder").symlink_to(tmp_path / "a" / "real")
    (tmp_path / "a" / "file.json").symlink_to(tmp_path / "a" / "real" / "x.json")
    (tmp_path / "a" / "broken").symlink_to(tmp_path / "nowhere")
    assert files.list_files(str(tmp_path / "a")) == [str(tmp_path / "a/broken"), str(tmp_path / "a/file.json")]
    assert files.list_folders(str(tmp_path / "a")) == [str(tmp_path / "a/folder"), str(tmp_path / "a/real")]


def test_hidden_and_half_written_files_are_not_listed(tmp_path: Path) -> None:
    for name in (".a.json.123.partial", ".hidden.json", "a.json"):
        (tmp_path / name).write_text("1")
    assert files.list_files(str(tmp_path), ".json") == [str(tmp_path / "a.json")]


def test_half_written_files_are_swept_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in (".a.json.123.partial", "b/0.3f.partial", "b/0", "a.json"):
        (tmp_path / name).write_text("1")
    assert files.remove_partials(str(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["0", "a.json"]
    assert files.remove_partials(str(tmp_path / "nowhere")) == 0
    assert files.remove_partials("memory://test-files") == 0


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("/", ("a",), "/a"),
        ("a", ("b/", "/c"), "a/b/c"),
        ("s3://bucket/", ("x", "y"), "s3://bucket/x/y"),
        ("memory://", ("x",), "memory://x"),
        ("a", ("",), "a"),
    ],
)
def test_joined_parts_have_one_slash_between_them(uri: str, parts: tuple[str, ...], joined: str) -> None:
    assert files.join(uri, *parts) == joined


def test_absolute_paths_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.absolute("x/../y") == str(tmp_path / "y")
    assert files.absolute("s3://bucket/y") == "s3://bucket/y"


def test_faults_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
        files.read_json(str(tmp_path / "a.json"))
    with pytest.raises(FileNotFoundError):
        files.read_json(str(tmp_path / "b.json"))
    with pytest.raises(DataError, match="its file system cannot be used"):
        files.exists("nosuch://x")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_another_machine_replaces_or_removes_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    path, original, asked = tmp_path / "a", LocalFileSystem.cat_file, []
    if is_there:
        path.write_bytes(b"new")

    def cat_file(*arguments: Any, **options: Any) -> bytes:
        asked.append(arguments)
        if len(asked) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return original(*arguments, **options)

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    if is_there:
        assert files.read_bytes(str(path)) == b"new"
    else:
        with pytest.raises(FileNotFoundError):
            files.read_bytes(str(path))
