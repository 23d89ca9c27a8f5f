"""The package's layers: a module may import only the layers that ALLOWED lists for its own."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.each import each

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "dia_server"
ALLOWED = {
    "web": {"web", "services", "errors", "units", "vocabulary"},
    "services": {"services", "db", "engine", "audio", "text", "native", "errors", "units"},
    "db": {"db", "errors", "units"},
    "engine": {"engine", "native", "errors", "units", "vocabulary"},
    "audio": {"audio", "errors", "units"},
    "text": {"text", "errors", "units", "vocabulary"},
}
FOREIGN = {
    "web": {"sqlalchemy", "torch", "transformers", "av"},
    "services": {"litestar", "torch", "transformers"},
    "db": {"litestar", "torch"},
    "engine": {"litestar", "sqlalchemy"},
    "audio": {"litestar", "sqlalchemy", "torch"},
    "text": {"litestar", "sqlalchemy", "torch", "numpy"},
}
ROOMS = {
    "services": (
        "",
        "durable_files",
        "digest_folder",
        "object_errors",
        "object_store",
        "file_change",
        "object_folder",
        "peers",
        "voices",
        "config",
        "speech",
        "jobs",
        "server",
    ),
    "web": ("requests", "", "middleware", "controllers"),
}
"""Order of the rooms in a layer; a module imports its own and earlier ones. "" is the layer's folder."""
MODULES = [path for layer in ALLOWED for path in sorted((PACKAGE / layer).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@each("path", MODULES)
def test_imports_follow_the_layers(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    names = [name.split(".") for name in imports(path)]

    ours = {name[1] for name in names if name[0] == "dia_server"}
    assert ours <= ALLOWED[layer] | {"__version__"}
    assert not {name[0] for name in names} & FOREIGN[layer]


@each("path", sorted(PACKAGE.rglob("*.py")))
def test_only_settings_and_cli_know_the_environment(path: Path) -> None:
    reads = {"os.environ", "os.getenv"} & {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not reads or path.name in {"settings.py", "cli.py"}


@each("path", MODULES)
def test_imports_follow_the_order_of_the_rooms(path: Path) -> None:
    layer, *inner = path.relative_to(PACKAGE).with_suffix("").parts
    order = ROOMS.get(layer, ())
    own = _room(order, inner)
    for name in imports(path):
        _, *parts = name.split(".")
        if parts and parts[0] == layer and len(parts) > 1:
            assert _room(order, parts[1:]) <= own, name


def _room(order: tuple[str, ...], inner: list[str]) -> int:
    return order.index(inner[0] if inner[0] in order else "") if order else 0


@each("path", sorted(path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts))
def test_helpers_of_tests_are_imported_from_helper_modules(path: Path) -> None:
    """A test module or conftest.py that another module imports cannot be changed or run by itself."""
    modules = {name for name in imports(path) if name.startswith("tests.")}

    assert not {name for name in modules for part in name.split(".") if re.match(r"test_|conftest$", part)}


HEAVY = {"torch", "transformers", "faster_whisper", "obstore"}
CHILDREN = ["dia_server.engine.espeak", "dia_server.audio.prompt", "dia_server.services.voices.transcriber"]
"""Modules that child processes import; heavy imports would delay each child's start."""


@pytest.mark.parametrize("module", ["dia_server.cli", "dia_server.app", *CHILDREN])
def test_starting_imports_no_heavy_module(module: str) -> None:
    program = f"import sys, {module}; print({HEAVY} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
