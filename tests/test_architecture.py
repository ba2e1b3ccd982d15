"""The shape of the code: what may import what, what loads quickly, and what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "raydom"

# Bottom to top: a part imports itself and the levels below it, never its neighbours.
LEVELS = (
    ("errors",),
    ("types",),
    ("config",),
    ("commands",),
    ("images", "storage", "networks"),
    ("neurons",),
    ("ingestion",),
    ("algorithms",),
    ("label_free",),
    ("training", "inference"),
    ("search",),
    ("report",),
    ("cluster",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# Third parties: what a part may not import, or all that it may.
NEVER = {"storage": {"torch", "torchvision"}, "images": {"torch", "torchvision"}}
ONLY = {
    "errors": set(),
    "types": {"numpy"},
    "config": {"numpy"},
    "commands": {"numpy"},
    "images": {"numpy", "scipy", "skimage", "sklearn", "jaxtyping"},
    "neurons": {"numpy", "scipy", "skimage", "sklearn", "jaxtyping", "bioimage_cpp"},
}
HELP_PATH = ("errors", "types", "config", "commands", "cli")


def part_of(path: Path) -> str:
    """The folder or file directly under raydom/ that a module belongs to; '' for raydom/__init__.py."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, those inside functions too."""
    here = ("raydom", *path.relative_to(PACKAGE).parts[:-1]) if path.is_relative_to(PACKAGE) else ()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) - node.level + 1], node.module or ""]) if node.level else node.module
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def broken_rules(path: Path) -> Iterator[str]:
    part = part_of(path)
    for line, name in imported(path):
        first, *rest = name.split(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if first == "raydom" and part:
            target = rest[0]
            if target not in LEVEL:
                yield f"{where}: {target} is in no level; import a name from the module that defines it."
            elif target != part and LEVEL[target] >= LEVEL[part]:
                yield f"{where}: {part} may not import {target}, which is beside or above it."
        elif first == "ray" and part != "cluster":
            yield f"{where}: only raydom.cluster imports ray."
        elif first in NEVER.get(part, ()):
            yield f"{where}: {part} may not import {first}."
        elif part in ONLY and first not in ONLY[part] | sys.stdlib_module_names | {"raydom"}:
            yield f"{where}: {part} imports only {', '.join(sorted(ONLY[part])) or 'the standard library'}."


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_point_downwards() -> None:
    broken = [rule for path in sorted(PACKAGE.rglob("*.py")) for rule in broken_rules(path)]
    assert not broken, "\n".join(broken)


def test_every_part_has_a_level() -> None:
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")} - {""}
    assert parts <= LEVEL.keys(), f"add to LEVELS: {sorted(parts - LEVEL.keys())}"


def test_jobs_leave_ray_to_the_cluster_package() -> None:
    jobs = sorted((ROOT / "jobs").glob("*.py"))
    using = [f"{job.name}:{line}" for job in jobs for line, name in imported(job) if name.split(".")[0] == "ray"]
    assert not using, f"import raydom.cluster instead: {using}"


@pytest.mark.parametrize(
    ("where", "code", "rule"),
    [
        ("images/x.py", "def f():\n    from raydom.storage import files", "may not import storage"),
        ("storage/x.py", "import torch.nn", "may not import torch"),
        ("training/x.py", "if True:\n    import ray.train", "only raydom.cluster"),
        ("algorithms/x.py", "from ..cluster import session", "may not import cluster"),
        ("report/x.py", "from raydom import stylize", "in no level"),
        ("images/x.py", "import pandas", "imports only"),
    ],
)
def test_a_forbidden_import_is_found(where: str, code: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: code)
    assert [rule in found for found in broken_rules(PACKAGE / where)] == [True]


def test_algorithms_load_without_ray() -> None:
    code = (
        "import importlib, pkgutil, sys, raydom.algorithms as package\n"
        "for module in pkgutil.walk_packages(package.__path__, 'raydom.algorithms.'):\n"
        "    importlib.import_module(module.name)\n"
        "print('ray' in sys.modules)"
    )
    assert in_fresh_process(code) == "False"


def test_help_needs_neither_torch_nor_ray() -> None:
    modules = ["raydom", *(f"raydom.{name}" for name in HELP_PATH if (PACKAGE / f"{name}.py").exists())]
    code = f"import sys, {', '.join(modules)}\nprint(*sorted({{'torch', 'ray'}} & set(sys.modules)))"
    assert in_fresh_process(code) == ""


def test_no_tracked_file_holds_the_address_of_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("needs the git checkout")
    hosts = ("pypi", "pythonhosted", "npmjs", "anaconda", "crates", "pytorch")
    address = re.compile(
        rf"https?://[\w.-]*\b(?:{'|'.join(hosts[:-1])})\.(?:org|com|io)|download\.{hosts[-1]}\.org/whl"
        r"|(?:index|registry)[-_]?url\s*[=\s]\s*[\"']?https?:|https?://\S+/simple\b"
    )
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    holding = [name for name in names if address.search((ROOT / name).read_text(errors="ignore"))]
    assert not holding
