"""Checks the directions of all imports, and the table of layers in `docs/architecture.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The packages and top-level modules of `tfquant`, from the bottom. Each imports only from itself
# and from layers below its own.
LAYERS = (
    ("markdown", "names", "ops", "pretrained", "stack"),
    ("coding", "files", "legacy_keras", "startup"),
    ("data", "layers", "quantization"),
    ("metrics", "plotting", "progress"),
    ("entropy",),
    ("exchange",),
    ("codec", "contexts"),
    ("exact", "models"),
    ("training",),
    ("export",),
    ("evaluation",),
    ("analysis", "commands"),
    ("cli",),
)
LAYER_OF = {unit: number for number, layer in enumerate(LAYERS, 1) for unit in layer}
# The package itself: its version, and the public names, which are imported when they are used.
PACKAGE = "tfquant"


def module_name(path: Path) -> str:
    """Returns the name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = (PACKAGE, *parts) if parts[0] == "models" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for folder in (PACKAGE, "models")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def unit_of(module: str) -> str:
    """Returns the package or top-level module below `tfquant` that contains a module."""
    _, _, inner = module.partition(".")
    return inner.partition(".")[0]


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def nodes_of(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that run, also those in functions."""
    for node in ast.iter_child_nodes(tree):
        if only_for_types(node):
            continue
        yield node
        yield from nodes_of(node)


def imports_of(source: str) -> set[str]:
    """Returns the modules of tfquant that a source imports, also in functions and by a string."""
    found = set()
    for node in nodes_of(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & MODULES.keys()
            found |= submodules
            found |= {node.module} if submodules != names else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name for name in found if name.split(".")[0] == PACKAGE}


def points_up(importer: str, imported: str) -> bool:
    """Returns true if a module must not import another."""
    if imported == PACKAGE:
        return False
    one, other = unit_of(importer), unit_of(imported)
    return one != other and LAYER_OF[other] >= LAYER_OF[one]


def test_every_module_belongs_to_one_layer():
    listed = [unit for layer in LAYERS for unit in layer]
    assert len(listed) == len(set(listed))
    assert set(listed) == {unit_of(module) for module in MODULES if module != PACKAGE}


@pytest.mark.parametrize("unit", LAYER_OF)
def test_no_import_points_up(unit):
    found = [
        f"{importer} imports {imported}"
        for importer, path in MODULES.items()
        if unit_of(importer) == unit
        for imported in imports_of(path.read_text())
        if points_up(importer, imported)
    ]
    assert not found


@pytest.mark.slow
def test_no_module_imports_one_that_depends_on_it():
    graph = {name: imports_of(path.read_text()) for name, path in MODULES.items()}
    finished: set[str] = set()
    while True:
        ready = {m for m in graph.keys() - finished if graph[m] & graph.keys() <= finished}
        if not ready:
            break
        finished |= ready
    assert not graph.keys() - finished, "modules in or above a cycle"


@pytest.mark.parametrize(
    "importer, source, up",
    [
        ("tfquant.entropy.model", "from tfquant.exchange import Exchange", True),
        ("tfquant.entropy.model", "def f():\n    import tfquant.codec", True),
        ("tfquant.stack", "importlib.import_module('tfquant.legacy_keras')", True),
        ("tfquant.codec", "from tfquant.contexts import serial", True),
        ("tfquant.entropy.model", "if TYPE_CHECKING:\n    import tfquant.codec", False),
        ("tfquant.exchange", "from tfquant.entropy.model import EntropyModel", False),
        ("tfquant.training.run", "import tfquant", False),
        ("tfquant.training.run", "from tfquant import __version__, cli", True),
        ("tfquant.entropy.model", "from tfquant.entropy import distributions", False),
    ],
)
def test_the_check_finds_what_points_up(importer, source, up):
    assert any(points_up(importer, imported) for imported in imports_of(source)) == up


def test_the_page_on_the_architecture_has_these_layers():
    text = (ROOT / "docs" / "architecture.md").read_text()
    (table,) = re.findall(r"<!-- layers: .*?-->(.*?)<!-- end of layers -->", text, re.DOTALL)
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, re.MULTILINE)
    found = {int(number): tuple(re.findall(r"`(\w+)`", units)) for number, units in rows}
    assert found == dict(enumerate(LAYERS, 1))
