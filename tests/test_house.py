"""The house: which room may know which (docs/architecture.md), read off the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "ablations", "sweeps", "analysis")

# room -> modules of other rooms it may import
ALLOWED = {
    "pipeline": (),
    "ablations": (
        "pipeline.config",
        "pipeline.records",
        "pipeline.launch",
        "pipeline.errors",
        "pipeline.cli",
        "pipeline.progress",
        "pipeline.schema.base",
    ),
    "sweeps": (
        "pipeline.config",
        "pipeline.records",
        "pipeline.launch",
        "pipeline.errors",
        "pipeline.cli",
        "pipeline.progress",
        "pipeline.schema.base",
    ),
    "analysis": ("pipeline.records", "pipeline.errors", "pipeline.cli"),
}
TORCH_FREE = (
    "pipeline.config",
    "pipeline.records",
    "pipeline.identity",
    "pipeline.data",
    "pipeline.models",
    "ablations",
    "analysis",
)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_go_one_way(room: str) -> None:
    wrong = []
    for path in (ROOT / room).rglob("*.py"):
        for name in imports(path):
            other = name.split(".")[0]
            if (
                other in ROOMS
                and other != room
                and not any(name == ok or name.startswith(ok + ".") for ok in ALLOWED[room])
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_analysis_never_names_torch() -> None:
    wrong = [
        path
        for path in (ROOT / "analysis").rglob("*.py")
        if any(name.split(".")[0] == "torch" for name in imports(path))
    ]
    assert wrong == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_these_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_module_of_analysis_loads_without_torch() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "analysis").rglob("*.py")
        if path.name != "__main__.py"
    ]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_pins_hold_no_addresses_and_cover_what_the_project_asks_for() -> None:
    import re
    import tomllib

    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    assert all(re.fullmatch(r"[a-z0-9_.\-]+", name) for name in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.split(r"[\[<>=!~ ]", item)[0].lower() for item in wanted} - {"ca2sis-lab"}
    normal = {name.replace("_", "-") for name in pins}
    assert {name for name in names if name.replace("_", "-") not in normal} == set()
