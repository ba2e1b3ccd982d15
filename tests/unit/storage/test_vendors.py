from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raydom.errors import DataError
from raydom.storage.readers import read_image

HEADS = {
    "czi": b"ZISRAWFILE" + bytes(22),
    "lif": b"\x70\0\0\0\x09\0\0\0\x2a\x02\0\0\0<\0>\0",
    "video": b"\0\0\0\x18ftypmp42" + bytes(12),
}


@pytest.mark.parametrize(("kind", "package"), [("czi", "czifile"), ("lif", "liffile"), ("video", "av")])
def test_without_the_extra_a_file_is_refused_naming_it(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"a\.{kind}: .*needs the extra {kind} of raydom .pip install {package}."):
        read_image(str(path))


@pytest.mark.parametrize(("kind", "package"), [("czi", "czifile"), ("lif", "liffile"), ("video", "av")])
def test_a_file_that_is_only_its_beginning_is_refused(kind: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind])
    with pytest.raises(DataError, match=rf"a\.{kind}: "):
        read_image(str(path))
