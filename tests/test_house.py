"""The house: which room may know which (docs/architecture.md), read off the imports of every module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "ablations", "sweeps", "analysis")

# room -> what it may import of other rooms. `docs/architecture.md` draws the same arrows, held by a test below.
EVERYBODY_SAYS = ("errors", "cli", "progress")
ALLOWED = {
    "pipeline": (),
    "ablations": ("config", "records", "launch", "schema", "weights", *EVERYBODY_SAYS),
    "sweeps": ("config", "records", "launch", "schema", "weights", *EVERYBODY_SAYS),
    "analysis": ("records", "schema", "pages", *EVERYBODY_SAYS),
}
# Floors of `pipeline/`, lowest first: a module imports its own room and lower floors. The page's table is this tuple.
FLOORS = (
    ("errors", "identity", "progress", "provenance", "pages"),
    ("records", "schema", "cli"),
    ("data", "models", "weights"),
    ("config", "metrics", "editing", "training"),
    ("evaluation",),
    ("runs",),
    ("launch",),
    ("bench", "paint"),
    ("commands",),
)
LOOSE_MODULES = 8  # at most so many modules beside the rooms, `__main__` aside
TORCH_FREE = (
    "pipeline.config",
    "pipeline.records",
    "pipeline.identity",
    "pipeline.data",
    "pipeline.models",
    "pipeline.runs",
    "pipeline.evaluation",
    "pipeline.training",
    "pipeline.commands",
    "pipeline.__main__",
    "ablations.__main__",
    "sweeps.__main__",
    "ablations",
    "analysis",
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Every import of a file, nested ones and those for type checkers too; submodules by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_go_one_way(room: str) -> None:
    wrong = []
    for path in (ROOT / room).rglob("*.py"):
        for name in imports(path):
            other, _, inside = name.partition(".")
            if other in ROOMS and other != room and not (other == "pipeline" and inside.split(".")[0] in ALLOWED[room]):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_the_page_draws_the_arrows_that_are_held() -> None:
    """`room ──► pipeline.{a, b}` lines of docs/architecture.md, one a group of rooms with equal arrows."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = {}
    for rooms, names in re.findall(r"^([a-z, ]+) ─+► pipeline\.\{([a-z, ]+)\}$", page, flags=re.MULTILINE):
        for room in rooms.split(", "):
            drawn[room.strip()] = set(names.split(", "))
    assert drawn == {room: set(names) for room, names in ALLOWED.items() if names}


def test_every_import_of_pipeline_goes_down_or_stays() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for module, path in MODULES.items():
        own = module.split(".")[1] if module.count(".") else ""
        if not module.startswith("pipeline.") or own == "__main__":
            continue
        for name in imports(path):
            if name.startswith("pipeline."):
                other = name.split(".")[1]
                if other != own and floor[other] >= floor[own]:
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    arrows = {module: [name for name in imports(path) if name in MODULES] for module, path in MODULES.items()}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the modules


def test_the_page_shows_the_floors_and_rooms_that_are_held() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, flags=re.MULTILINE)
    shown = [(int(number), tuple(re.findall(r"`(\w+)/?`", rooms))) for number, rooms in table]
    assert shown == [(number, rooms) for number, rooms in reversed(list(enumerate(FLOORS, start=1)))]
    here = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__", "__main__"}
    rooms = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert here | rooms == {room for floor in FLOORS for room in floor}
    assert len(here) <= LOOSE_MODULES


def test_argparse_stands_at_the_door_alone() -> None:
    doors = {"pipeline.cli", "pipeline.__main__", "ablations.commands", "sweeps.commands", "analysis.options"}
    allowed = ("pipeline.commands.", "analysis.commands.")
    wrong = [
        module
        for module, path in MODULES.items()
        if "argparse" in set(imports(path)) and not module.startswith(allowed) and module not in doors
    ]
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
    names = [name for name in MODULES if name.startswith("analysis") and not name.endswith("__main__")]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_summary_of_a_docstring_is_one_line_that_ends() -> None:
    """A formatter breaks a long one anywhere; a human says it shorter."""
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                summary = (ast.get_docstring(node) or "nothing to say.").partition("\n\n")[0]
                if "\n" in summary or not summary.endswith((".", "?")):
                    wrong.append(f"{module}, {'its head' if isinstance(node, ast.Module) else node.name}: {summary}")
    assert wrong == []


def test_pins_hold_no_addresses_and_cover_what_the_project_asks_for() -> None:
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
