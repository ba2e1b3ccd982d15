from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raydom.errors import DataError
from raydom.storage.readers import read_pictures

NUMBER = 2000


def test_mutated_files_are_read_or_refused_by_name_without_a_crash_or_a_hang(tmp_path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), str(tmp_path), str(NUMBER), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    after = told[-1] if told else "the samples"
    assert done.returncode == 0, f"ended with {done.returncode} at the file after {after}: {done.stderr[-2000:]}"
    outcomes = Counter(line["outcome"] for line in told)
    assert set(outcomes) == {"read", "refused"}, [line for line in told if line["outcome"] not in ("read", "refused")]
    assert outcomes.total() == NUMBER
    assert outcomes["refused"] > outcomes["read"] > 50  # mutations hurt, and do not only hurt the first bytes


def test_a_chain_of_tiff_pages_that_bites_its_tail_ends(tmp_path) -> None:
    tags = struct.pack("<HHHII", 1, 256, 4, 1, 31)  # a width of 31 px
    first = struct.pack("<4sI", b"II*\0", 8) + tags + struct.pack("<I", 26)
    path = tmp_path / "a.tif"
    path.write_bytes(first + struct.pack("<HI", 0, 8))  # its second page has no tags, and leads back to the first
    with pytest.raises(DataError):  # it had no end
        list(read_pictures(str(path)))
