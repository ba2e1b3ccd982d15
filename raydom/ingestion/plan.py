"""What an ingestion will do: which files are images, their ids, and which label files belong to them.

No image is opened here, so that conflicts are told before anything is written.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from raydom.commands import IngestConfig
from raydom.errors import ConfigError
from raydom.ingestion.coco import read_coco
from raydom.storage import files
from raydom.storage.collection import MANIFEST, SCHEMA
from raydom.storage.columns import COMPUTED
from raydom.storage.parquet import PARQUET_SUFFIXES, is_manifest
from raydom.storage.readers import SUFFIXES, split_part
from raydom.storage.video import VIDEO_SUFFIXES, is_video_name
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

IGNORED = (
    "", ".md", ".txt", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".ini", ".html", ".pdf", ".db",
    ".py", ".log", ".npy", ".zip",
)  # fmt: skip
"""Files of a folder or glob with these suffixes are no images and are passed over; others are refused by name."""
ROWS = re.compile(r"images/([^/]+)/")
"""Where the images of a stack or table lie: in a folder called as the file."""
PLANE = re.compile(r"(_[a-z]\d{3,})+$")
"""The suffix that a plane of a stack has in its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSource:
    """Where a label of one image comes from."""

    name: str
    uri: str
    """A file, or a folder with a mask for each object; such a folder ends in a slash."""
    annotations: str | None = None
    """What a file of annotations, which is that of many images, says of this one."""
    has_valid: bool = False
    """Whether it gives a further label, ``NAME-valid``: 0 where the first does not count."""
    boundary_px: float | None = None
    """Whether it gives a further label, ``NAME-boundary``, and how far that reaches from the boundaries."""
    ignore_value: int | None = None
    """Value of the pixels that do not count."""

    @property
    def one_mask_per_object(self) -> bool:
        return self.uri.endswith("/")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of all the labels that it gives."""
        endings = ["-valid"] * self.has_valid + ["-boundary"] * (self.boundary_px is not None)
        return (self.name, *(self.name + ending for ending in endings))


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTask:
    """One image file and its label files: the unit of work. Plain values, so that it can run anywhere."""

    image_id: str
    """Of the image, or, before the plane's suffix, of each plane of a stack."""
    source: str
    labels: tuple[LabelSource, ...]
    group: str | None
    columns: tuple[tuple[str, str], ...]
    """Further columns of the manifest, of those that its path tells."""
    config: IngestConfig
    existing: tuple[ImageRecord, ...]
    """Rows of the collection with this id, or the ids of its planes, or that lie in the folder of this file."""


def make_plan(config: IngestConfig, records: Iterable[ImageRecord]) -> tuple[list[IngestTask], list[str]]:
    """The tasks of an ingestion, in the order of their ids, and what the user should be told.

    Args:
        records: The rows that the collection has already.

    Raises:
        ConfigError: For a source that does not exist, two sources with one id, and labels that cannot be paired.
    """
    label_sets = find_labels(config)
    label_files = {uri for uris in label_sets.values() for uri in uris}
    sources = find_groups(config) if config.index_only else find_files(config.source)
    sources = [s for s in sources if s not in label_files and _parent(s) + "/" not in label_files]
    by_id: dict[str, str] = {}
    for source in sources:
        image_id = safe_id(source)
        if image_id in by_id:
            raise ConfigError(
                f"two sources have the id {image_id}: {by_id[image_id]} and {source}. Rename one, or ingest them into "
                "two collections."
            )
        by_id[image_id] = source
    if not by_id:
        raise ConfigError(f"no image files in {', '.join(config.source)}; readable are {', '.join(SUFFIXES)}.")
    others = sum(not is_video_name(source) for source in by_id.values())
    if config.fps is not None and others == len(by_id):
        raise ConfigError(f"--fps is for videos ({', '.join(VIDEO_SUFFIXES)}), but none is among the sources.")
    named = {files.absolute(entry) for entry in (*config.source, *(source for _, source in _label_entries(config)))}
    pairs, told = pair_label_sets(by_id, label_sets, named)
    if config.fps is not None and others:
        told.append(f"--fps means nothing for {others} of {len(by_id)} files, which are no videos.")
    pairs = {image_id: tuple(_refined(label, config) for label in labels) for image_id, labels in pairs.items()}
    _check_label_names(config, label_sets)
    patterns = config.column_patterns()
    taken = sorted(patterns.keys() & {*SCHEMA.names, *COMPUTED})
    if taken:
        raise ConfigError(f"--column {', '.join(taken)}: raydom has a column of that name; choose another name.")
    existing: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        for key in {record.image_id, PLANE.sub("", record.image_id), *ROWS.findall(record.uri)[:1]}:
            existing[key].append(record)
    tasks = [
        IngestTask(
            image_id=image_id,
            source=by_id[image_id],
            labels=pairs.get(image_id, ()),
            group=_searched(by_id[image_id], config.group),
            columns=tuple(
                (name, value)
                for name, pattern in sorted(patterns.items())
                if (value := _searched(by_id[image_id], pattern)) is not None
            ),
            config=config,
            existing=tuple(existing.get(image_id, ())),
        )
        for image_id in sorted(by_id)
    ]
    searched: dict[str, tuple[str, list[str | None]]] = {}
    if config.group is not None:
        searched["--group"] = (config.group, [task.group for task in tasks])
    for name, pattern in patterns.items():
        values = [dict(task.columns).get(name) for task in tasks]
        searched[f"--column {name}"] = (pattern, values)
        if len(tasks) > 1 and values[0] is not None and len(set(values)) == 1:
            told.append(f"--column {name} {pattern!r} has the value {values[0]} for all {len(tasks)} files.")
    for option, (pattern, values) in searched.items():
        if None in values:
            told.append(
                f"{option} {pattern!r} matches no part of the path of {values.count(None)} of {len(tasks)} files."
            )
    return tasks, told


def find_files(sources: Iterable[str]) -> list[str]:
    """The image files that sources (files, folders, globs; local or URLs) name, sorted, each once.

    A part after the file or glob (``*.h5:/raw``) is kept with each file.

    A folder means the files directly in it, and a glob may reach deeper (``**``). Both pass over hidden files and
    documents; every other file is taken, and refused by name later if it is no image. Parquet files are taken where
    there is nothing else, or by a glob of their suffix; beside images they are documents.

    Raises:
        ConfigError: If a source does not exist, or a glob matches nothing.
    """
    found: dict[str, None] = {}
    passed: Counter[str] = Counter()
    for source in sources:
        uri, part = split_part(files.absolute(source))
        ending = f":{part}" if part is not None else ""
        is_file = _suffix(uri) in SUFFIXES and files.exists(uri) and not files.is_folder(uri)
        if is_file:
            found[uri + ending] = None
            continue
        if files.is_folder(uri):
            if files.exists(files.join(uri, "zarr.json")) or files.exists(files.join(uri, ".zattrs")):
                raise ConfigError(f"{uri} is a Zarr group; OME-Zarr images are listed in place by --index-only.")
            candidates = files.list_files(uri)
        elif files.exists(uri):
            found[uri + ending] = None
            continue
        elif re.search(r"[*?\[]", uri):
            candidates = [match for match in files.glob(uri) if not files.is_folder(match)]
            if not candidates:
                raise ConfigError(f"{source}: no file matches.")
        else:
            raise ConfigError(f"{source}: there is no such file or folder.")
        tables = _suffix(uri) in PARQUET_SUFFIXES or _has_tables_of_images(candidates)
        for candidate in candidates:
            if _name(candidate).startswith("."):
                continue
            if _suffix(candidate) in (IGNORED if tables else (*IGNORED, *PARQUET_SUFFIXES)) or _name(
                candidate
            ).lower().startswith(("readme", "license")):
                passed[_suffix(candidate) or "no suffix"] += 1
            else:
                found[candidate + ending] = None
    if passed:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(passed.items()))
        logger.warning("passed over %d files that are no images (%s).", sum(passed.values()), kinds)
    return sorted(found)


def _has_tables_of_images(candidates: Sequence[str]) -> bool:
    """Whether the Parquet files of a folder hold images: if there are no other images, and they are no collection."""
    shown = [candidate for candidate in candidates if not _name(candidate).startswith(".")]
    kinds = {_suffix(candidate) for candidate in shown} - {*IGNORED}
    return kinds <= {*PARQUET_SUFFIXES} and not any(_name(one) == MANIFEST and is_manifest(one) for one in shown)


def find_groups(config: IngestConfig) -> list[str]:
    """The OME-Zarr groups that sources name: groups, folders of ``*.zarr`` groups, and globs."""
    found: dict[str, None] = {}
    for source in config.source:
        uri = files.absolute(source)
        matches = [uri] if not re.search(r"[*?\[]", uri) or files.exists(uri) else files.glob(uri)
        inside = []
        for match in matches:
            if any(files.exists(files.join(match, name)) for name in ("zarr.json", ".zattrs", ".zgroup")):
                inside.append(match)
            else:
                inside += [folder for folder in files.list_folders(match) if folder.endswith(".zarr")]
        if not inside:
            raise ConfigError(f"{source}: there is no OME-Zarr group, nor a folder with *.zarr in it.")
        found |= dict.fromkeys(inside)
    return sorted(found)


def find_labels(config: IngestConfig) -> dict[str, list[str]]:
    """The label files of each label name, or folders of masks. ``PATH`` without ``NAME=`` is named ``label``.

    A glob that matches nothing but folders (``*/masks``) means a folder for each image, with a mask for each object.
    """
    found: dict[str, list[str]] = {}
    for name, source in _label_entries(config):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"label name {name!r} can only have letters, digits and . _ -; give --labels NAME=PATH.")
        uris = _find_mask_folders(source) or find_files([source])
        found[name] = sorted({*found.get(name, ()), *uris})
    return found


def _label_entries(config: IngestConfig) -> Iterator[tuple[str, str]]:
    """Name and path or pattern of what is given as labels."""
    for entry in config.labels:
        match = re.match(r"([^/:=]+)=(.+)", entry)
        yield (match[1], match[2]) if match else ("label", entry)


def _find_mask_folders(source: str) -> list[str]:
    uri = files.absolute(source)
    matches = files.glob(uri) if re.search(r"[*?\[]", uri) and not files.exists(uri) else []
    return [match.rstrip("/") + "/" for match in matches] if all(files.is_folder(match) for match in matches) else []


def pair_label_sets(
    by_id: Mapping[str, str], label_sets: Mapping[str, Sequence[str]], named: Container[str] = ()
) -> tuple[dict[str, tuple[LabelSource, ...]], list[str]]:
    """For each image id, its labels; and what is left without a partner.

    A single image and a single label belong together, whatever they are called, if both are ``named`` (by the user, and
    not only found), or are tables, whose rows have ids.

    Raises:
        ConfigError: If two label files have one stem, an image could have several, or none fits any image.
    """
    pairs: dict[str, tuple[LabelSource, ...]] = {}
    told: list[str] = []
    for name, uris in label_sets.items():
        by_stem: dict[str, LabelSource] = {}
        for uri in uris:
            for stem, label in _label_sources(name, uri, by_id):
                if stem in by_stem:
                    raise ConfigError(f"two files of label {name} have the stem {stem}: {by_stem[stem].uri} and {uri}.")
                by_stem[stem] = label
        partner = pair_stems(list(by_id), list(by_stem), name)
        single = [*by_id.values(), *uris] if len(by_id) == len(by_stem) == 1 else []
        if not partner and single and (_is_table(single) or all(uri in named for uri in single)):
            partner = dict(zip(by_id, by_stem, strict=True))
        if not partner:
            raise ConfigError(
                f"no file of label {name} belongs to any image: the images are called {', '.join(list(by_id)[:3])}, "
                f"the labels {', '.join(list(by_stem)[:3]) or '(there are none)'}. The stems must be the same, or the "
                "label's must go on after a _ - or dot. Folders with a mask for each object are named by a glob, such "
                "as '*/masks'."
            )
        lonely = sorted(set(by_stem) - set(partner.values()))
        if lonely:
            told.append(
                f"{len(lonely)} files of label {name} belong to no image and are not used: "
                f"{', '.join(_told(stem, by_stem[stem]) for stem in lonely[:3])}{', ...' if len(lonely) > 3 else ''}."
            )
        if len(partner) < len(by_id):
            told.append(f"{len(by_id) - len(partner)} of {len(by_id)} images have no label {name}.")
        for image_id, stem in partner.items():
            pairs[image_id] = (*pairs.get(image_id, ()), by_stem[stem])
    return pairs, told


def _label_sources(name: str, uri: str, image_ids: Container[str]) -> Iterator[tuple[str, LabelSource]]:
    """The stems of the images that a label file is of, and what it says of each."""
    if _suffix(uri) != ".json":
        yield _label_stem(uri, image_ids), LabelSource(name=name, uri=uri)
        return
    by_name, has_crowds = read_coco(uri)
    for file_name, text in by_name.items():
        label = LabelSource(name=name, uri=uri, annotations=text, has_valid=has_crowds)
        yield safe_id(file_name), label


def _label_stem(uri: str, image_ids: Container[str]) -> str:
    """Of a file, its stem; of a folder of masks, its name, or that of the folder around it (``ID/masks``)."""
    if not uri.endswith("/"):
        return safe_id(uri)
    own, outer = (files.safe_name(name) for name in (_name(uri), _name(_parent(uri))))
    return own if own in image_ids else outer


def _refined(label: LabelSource, config: IngestConfig) -> LabelSource:
    """The label with what the configuration says of labels of its name."""
    ignore_value = config.ignored_values().get(label.name)
    return replace(
        label,
        ignore_value=ignore_value,
        has_valid=label.has_valid or ignore_value is not None,
        boundary_px=config.boundary_widths_px().get(label.name),
    )


def _check_label_names(config: IngestConfig, label_sets: Mapping[str, Sequence[str]]) -> None:
    for option, named in (
        ("--ignore-value", config.ignored_values()),
        ("--boundary-from-instances", config.boundary_widths_px()),
    ):
        unknown = sorted(set(named) - set(label_sets))
        if unknown:
            there = f"there is {', '.join(label_sets)}" if label_sets else "no --labels are given"
            raise ConfigError(f"{option} is for label {', '.join(unknown)}, but {there}; give {option} NAME=NUMBER.")
    for name in label_sets:
        for ending in ("-valid", "-boundary"):
            if name + ending in label_sets:
                raise ConfigError(f"label {name + ending} may be made from label {name}; choose another name.")


def pair_stems(images: Sequence[str], labels: Sequence[str], name: str) -> dict[str, str]:
    """For each image stem that has one, the label stem: the same, or the image's with ``_``, ``-`` or ``.`` and more.

    A longer label stem belongs to the longest image stem that it begins with.

    Raises:
        ConfigError: If several labels could belong to one image.
    """
    partner = {stem: stem for stem in images if stem in set(labels)}
    known = set(images)
    candidates: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        if label in known:
            continue
        starts = [label[:end] for end in range(len(label) - 1, 0, -1) if label[end] in "_-." and label[:end] in known]
        if starts:
            candidates[starts[0]].append(label)
    for stem, found in candidates.items():
        if stem in partner:
            continue
        if len(found) > 1:
            raise ConfigError(
                f"image {stem} could have the label {name} of {' or '.join(sorted(found))}; "
                f"choose by a glob, such as --labels '{name}=FOLDER/*{found[0][len(stem) :]}*'."
            )
        partner[stem] = found[0]
    return partner


def safe_id(uri: str) -> str:
    """The stem of a file name, with characters other than letters, digits and ``._-`` replaced by ``_``."""
    return files.safe_stem(split_part(uri)[0])


def _searched(source: str, pattern: str | None) -> str | None:
    """The first group that takes part in the match (or the whole match) of the pattern in the path."""
    match = re.search(pattern, source) if pattern is not None else None
    if match is None:
        return None
    return next((group for group in match.groups() if group is not None), match[0])


def _is_table(uris: Iterable[str]) -> bool:
    return all(_suffix(split_part(uri)[0]) in PARQUET_SUFFIXES for uri in uris)


def _told(stem: str, label: LabelSource) -> str:
    return label.uri if label.annotations is None else f"{stem} of {label.uri}"


def _parent(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[0]


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _suffix(uri: str) -> str:
    dot = _name(uri).rfind(".")
    return _name(uri)[dot:].lower() if dot > 0 else ""
