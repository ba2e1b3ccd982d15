from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

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
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8))
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8), append=True)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        first, second = (page.offset for page in tiff.pages)
        last = second + 2 + 12 * len(tiff.pages[1].tags)
    content[last : last + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError):  # it had no end
        list(read_pictures(str(path)))
