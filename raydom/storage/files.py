"""Files on a local disk or on any object store that fsspec knows, by the same few functions.

A URI is a local path or an fsspec URL (``s3://bucket/prefix``, ``gs://``, ``memory://``). A folder of an object store
is only a common prefix, so folders are never made or asked for here, except where a local disk needs them. What a store
fails to do for a moment is asked of it again; see ``stores``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from raydom.errors import ConfigError, DataError
from raydom.storage import stores

AT_ONCE = 8
"""Requests that are made at the same time where there are many."""

T = TypeVar("T")


def is_url(uri: str) -> bool:
    """Whether the URI names a file system other than by a plain local path."""
    return "://" in uri or "::" in uri


def join(uri: str, *parts: str) -> str:
    """The URI of something below ``uri``; the parts may themselves hold slashes."""
    below = "/".join(part.strip("/") for part in parts if part.strip("/"))
    return uri + below if not below or uri.endswith("/") or not uri else f"{uri}/{below}"


def safe_name(text: str) -> str:
    """The text with characters other than letters, digits and ``._-`` replaced by ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def safe_stem(uri: str) -> str:
    """The name of a file without folders and suffix, with such characters only."""
    within = (link for link in uri.split("::") if link.partition("://")[2])  # of zip://a.tif::b.zip what is in it
    uri = next(within, uri)
    name = uri.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return safe_name(re.sub(r"(\.ome)?\.[^.]+$", "", name, flags=re.IGNORECASE) or name)


def absolute(uri: str) -> str:
    """The URI with local paths made absolute, so that it means the same in another process or folder."""
    if not is_url(uri):
        return os.path.abspath(Path(uri).expanduser())  # noqa: PTH100 - Path.absolute keeps ".."
    if uri.startswith(("file://", "local://")):
        return str(file_system(uri)[1])
    return uri


def file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path in it.

    Raises:
        DataError: If the protocol is unknown or its package is not installed.
    """
    return stores.file_system(uri)


def steady(call: Callable[[], T], uri: str) -> T:
    """What a call that reads or writes there returns; see ``stores.steady``. Local disks are asked once."""
    return stores.steady(call, uri) if is_url(uri) else call()


def exists(uri: str) -> bool:
    """Whether there is a file, or anything under this prefix."""
    fs, path = file_system(uri)
    return bool(steady(lambda: fs.exists(path), uri))


def is_file(uri: str) -> bool:
    """Whether there is a file that is not empty; for what is seldom there, this asks a store once, ``exists`` twice."""
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        return Path(path).is_file()
    try:
        return bool(steady(lambda: fs.cat_file(path, start=0, end=1), uri))
    except FileNotFoundError:
        return False


def is_folder(uri: str) -> bool:
    """Whether there is something under this prefix."""
    fs, path = file_system(uri)
    return bool(steady(lambda: fs.isdir(path), uri))


def read_bytes(uri: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: If there is none.
    """
    fs, path = file_system(uri)
    try:
        return bytes(steady(lambda: fs.cat_file(path), uri))
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return bytes(fs.cat_file(path))  # on NFS: another machine replaced or removed it between opening and reading


def write_bytes_atomic(uri: str, content: bytes) -> None:
    """Write a whole file, so that a reader sees the old content or the new one, never a part of it.

    On a local disk: a temporary file in the same folder (its name begins with a dot), then a rename. On an object
    store: one put (of large files one upload in parts), which is atomic there.

    Raises:
        ConfigError: If there is no such bucket.
    """
    fs, path = file_system(uri)
    if not isinstance(fs, LocalFileSystem):
        try:
            steady(lambda: fs.pipe_file(path, content), uri)
        except FileNotFoundError as error:
            raise ConfigError(f"{uri}: there is no such bucket. Make it first, or correct its name.") from error
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:  # of a full disk, the system does not say where
        error.filename = error.filename or uri
        raise
    finally:
        temporary.unlink(missing_ok=True)


def list_files(uri: str, suffix: str = "", prefix: str = "") -> list[str]:
    """URIs of the files directly in a folder whose names begin and end so, sorted; [] if there is no such folder.

    Object stores are asked for names with the prefix only.

    Names that begin with a dot are left out: they are hidden, or half written.
    """
    fs, path = file_system(uri)

    def entries() -> list[dict[str, Any]]:
        if prefix and not isinstance(fs, LocalFileSystem):
            return list(fs.find(path, prefix=prefix, detail=True).values())
        return list(fs.ls(path, detail=True, refresh=True))

    try:
        found = steady(entries, uri)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = sorted(_last_part(entry) for entry in found if _kind(fs, entry) == "file")
    wanted = (name for name in names if name.startswith(prefix) and name.endswith(suffix))
    return [join(uri, name) for name in wanted if not name.startswith(".")]


def list_folders(uri: str) -> list[str]:
    """URIs of the folders directly in a folder, sorted; [] if there is none."""
    fs, path = file_system(uri)
    try:
        entries = steady(lambda: fs.ls(path, detail=True, refresh=True), uri)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = sorted(_last_part(entry) for entry in entries if _kind(fs, entry) == "directory")
    return [join(uri, name) for name in names if name and not name.startswith(".")]


def _last_part(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def _kind(fs: Any, entry: dict[str, Any]) -> str:
    """file or directory; of a link, what it leads to (a listing calls it neither), and file if that is gone."""
    try:
        return str(fs.info(entry["name"])["type"] if entry.get("islink") else entry["type"])
    except FileNotFoundError:  # whoever reads it is told
        return "file"


def glob(pattern: str) -> list[str]:
    """URIs that match a pattern with ``*``, ``?``, ``[...]`` and ``**``, sorted."""
    fs, path = file_system(pattern)
    first, *archives = pattern.split("::")  # zip://*.tif::b.zip: what is found is in b.zip
    within = "".join(f"::{archive}" for archive in archives) if first.partition("://")[2] else ""
    found = steady(lambda: fs.glob(path), pattern)
    return sorted(fs.unstrip_protocol(one) + within if is_url(pattern) else one for one in found)


def read_json(uri: str) -> Any:
    """A JSON file.

    Raises:
        FileNotFoundError: If there is none.
        DataError: If it is no JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{uri}: not valid JSON ({error}); restore the file or write it again.") from error


def write_json(uri: str, value: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_bytes_atomic(uri, (json.dumps(value, indent=2) + "\n").encode())


def create_json(uri: str, value: Any) -> bool:
    """Write plain values as JSON where there is no file yet: of several writers at once, one does.

    Returns:
        False if this place cannot do that (object stores, disks without hard links); nothing is written then.

    Raises:
        FileExistsError: If there is a file.
    """
    fs, path = file_system(uri)
    if not isinstance(fs, LocalFileSystem):
        return False
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        write_json(str(temporary), value)
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            return False
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return True


def remove(uri: str) -> None:
    """Remove a file or everything under a prefix; nothing happens if there is nothing."""
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        if Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        if "s3" in fs.protocol:  # whose own way looks twice more for what is not there
            steady(lambda: _remove_s3(fs, path), uri)
        else:
            steady(lambda: fs.rm(path, recursive=True), uri)


def _remove_s3(fs: Any, path: str) -> None:
    folder, _, name = path.rstrip("/").rpartition("/")
    below = fs.find(folder, prefix=f"{name}/")
    if below:
        fs.rm([escape(one) for one in below])  # a thousand by one request
    else:
        fs.rm_file(path)


def remove_files(uris: Iterable[str]) -> None:
    """Remove files of one store, each by one request, of S3 a thousand by one; those that are gone do not matter.

    ``remove`` asks first what is there.
    """

    def remove_one(uri: str) -> None:
        fs, path = file_system(uri)
        with contextlib.suppress(FileNotFoundError):
            steady(lambda: fs.rm_file(path), uri)

    found = list(uris)
    if len(found) < 2 or not is_url(found[0]):
        for uri in found:
            remove_one(uri)
        return
    if stores.protocol_of(found[0]) in stores.S3:
        fs, _ = file_system(found[0])
        paths = [escape(file_system(uri)[1]) for uri in found]
        with contextlib.suppress(FileNotFoundError):
            steady(lambda: fs.rm(paths), found[0])
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(remove_one, found))


def rename(uri: str, to: str) -> None:
    """Give a file another name in the same store; nothing happens if it is gone."""
    fs, path = file_system(uri)
    with contextlib.suppress(FileNotFoundError):
        steady(lambda: fs.mv(path, file_system(to)[1]), uri)


def remove_partials(uri: str) -> int:
    """Remove what killed processes left half written below a local folder; returns how many files.

    Nothing may be writing there. Object stores have no half-written objects.
    """
    fs, path = file_system(uri)
    if not isinstance(fs, LocalFileSystem):
        return 0
    found = list(Path(path).rglob("*.partial"))
    for partial in found:
        partial.unlink(missing_ok=True)
    return len(found)


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A local path to the content of a file: the file itself, or a temporary copy of a remote one."""
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="raydom-") as folder:
        copy = Path(folder) / (path.rstrip("/").rsplit("/", 1)[-1] or "file")
        steady(lambda: fs.get_file(path, str(copy)), uri)
        yield copy
