"""What the README shows as code does what the README says."""

import re
import sys
from pathlib import Path

import numpy as np

import raydom

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_method_that_the_readme_adds_matches_medians(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n# my_methods\.py\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "my_methods.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    image, style = rng.uniform(0.1, 0.3, (31, 41, 3)), rng.uniform(0.4, 0.6, (20, 30, 3))
    result = raydom.stylize(image, style, method="my_methods:median")
    assert np.allclose(np.median(result, axis=(0, 1)), np.median(style, axis=(0, 1)), atol=1e-3)
    sys.modules.pop("my_methods", None)


def test_every_command_that_the_readme_names_exists():
    from raydom.cli import COMMANDS

    named = set(re.findall(r"^raydom ((?:tune )?train [\w-]+|tune style|neurons \w+|\w+)", README, re.MULTILINE))
    assert {"ingest", "train supervised", "segment", "compare", "info"} <= named
    assert named <= set(COMMANDS)
