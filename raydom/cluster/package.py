"""The folder that travels with a job: what of it is needed there, in one archive of bounded size."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raydom.errors import ConfigError

EXCLUDED = (
    ".git", ".venv", "venv", "__pycache__", ".*_cache", "*.egg-info", "node_modules", "*.zarr",
    "/data", "/results", "/runs", "/raydom-demo",
)  # fmt: skip
"""What no job needs from here, by name, or (with a leading /) by its path from the top; images and results are read and
written where all nodes see them."""
SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*", ".netrc", ".aws", ".azure", ".ssh", ".kube",
    ".gcloud", ".boto", ".s3cfg", "credentials", "credentials.*", "auth_token", "service-account*.json",
)  # fmt: skip
MAX_BYTES = 100 * 2**20
"""Of all files before compression: every node of the cluster fetches them (and Ray takes no more than 512 MiB)."""
MAX_FILES = 10_000
LARGEST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Package:
    """An archive of a folder."""

    path: Path
    num_files: int
    num_bytes: int
    """Of the files before compression."""


def pack_folder(folder: Path, to: Path, exclude: Sequence[str] = (), more: Mapping[str, Path] | None = None) -> Package:
    """Put a folder into a zip archive; equal contents make equal archives, sent to a cluster once.

    In a git checkout what git ignores is left out, too.

    Args:
        folder: What to ship.
        to: The archive to write, outside of the folder.
        exclude: Patterns of names, or with a leading / of paths from the top, beside ``EXCLUDED`` and ``SECRETS``.
        more: Further files, by their name in the archive.

    Raises:
        ConfigError: When it is too large, naming the largest files.
    """
    patterns = (*EXCLUDED, *SECRETS, *exclude)
    members: dict[str, Path] = {}
    num_bytes = 0
    for name in shipped_names(folder, patterns):
        members[name] = folder / name
        num_bytes += members[name].stat().st_size
        if len(members) > MAX_FILES:
            break
    members |= more or {}
    if num_bytes > MAX_BYTES or len(members) > MAX_FILES:
        largest = sorted(members, key=lambda name: members[name].stat().st_size, reverse=True)[:LARGEST_SHOWN]
        shown = ", ".join(f"{name} ({members[name].stat().st_size / 2**20:.1f} MiB)" for name in largest)
        raise ConfigError(
            f"{folder} would travel with the job and holds {'more than ' if len(members) > MAX_FILES else ''}"
            f"{len(members) - len(more or {})} files of {num_bytes / 2**20:.0f} MiB; the most is {MAX_FILES} files and "
            f"{MAX_BYTES / 2**20:.0f} MiB. The largest: {shown}. Leave out what the job does not need by --exclude "
            "PATTERN, or submit from a smaller folder; images and models belong where all nodes see them (s3://...)."
        )
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name)  # of 1980, whatever the file's date
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (members[name].stat().st_mode & 0o777) << 16
            archive.writestr(entry, members[name].read_bytes())
    return Package(to, len(members), num_bytes)


def shipped_names(folder: Path, patterns: Sequence[str]) -> Iterator[str]:
    """Files below the folder that no pattern leaves out, by their paths from it."""
    listed = _listed_by_git(folder)
    for name in _walked(folder, patterns) if listed is None else listed:
        if not _is_left_out(name, patterns) and (folder / name).is_file():
            yield name


def _listed_by_git(folder: Path) -> list[str] | None:
    """What git does not ignore; None where git keeps nothing."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return sorted({name for name in os.fsdecode(listed.stdout).split("\0") if name})


def _walked(folder: Path, patterns: Sequence[str]) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        folders[:] = sorted(name for name in folders if not _is_left_out(str(inside / name), patterns))
        yield from (str(inside / name) for name in sorted(names))


def _is_left_out(name: str, patterns: Sequence[str]) -> bool:
    path = PurePosixPath(name)
    tops = ["/" + str(PurePosixPath(*path.parts[: n + 1])) for n in range(len(path.parts))]
    return any(
        fnmatch.fnmatchcase(one, pattern)
        for pattern in patterns
        for one in (tops if pattern.startswith("/") else path.parts)
    )
