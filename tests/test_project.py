"""Properties of the repository as a whole: packaging, imports, documentation, portability."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
from pathlib import Path
from typing import Callable

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfquant

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for top in ("tfquant", "models") for path in (ROOT / top).rglob("*.py"))


def _tracked_files() -> list[Path]:
    """Returns every file that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listing.returncode != 0:
        pytest.skip("this is not a git checkout")
    paths = (ROOT / name for name in listing.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.fixture
def metadata_of(monkeypatch) -> Callable[..., dict]:
    """`metadata_of(stack)`: setup.py's arguments of setuptools; None: without TFQUANT_STACK."""

    def run(stack=None):
        handed = {}
        monkeypatch.setattr(setuptools, "setup", lambda **keywords: handed.update(keywords))
        monkeypatch.chdir(ROOT)
        monkeypatch.delenv("TFQUANT_STACK", raising=False)
        if stack:
            monkeypatch.setenv("TFQUANT_STACK", stack)
        runpy.run_path("setup.py")
        return handed

    return run


@pytest.fixture
def metadata(metadata_of) -> dict:
    return metadata_of()


# Stack -> (its file of pinned versions, the extras that it pins).
STACKS = {
    "tf217": ("constraints.txt", ("gpu", "test", "docs", "digits", "tfds", "heif")),
    "tf214": ("constraints-tf214.txt", ("test", "digits", "tfds", "heif")),
    "tf221": ("constraints-tf221.txt", ("test", "digits", "heif")),
}


def _pins(name: str) -> dict[str, list]:
    """Returns package -> versions, from a constraints file; several if they depend on the
    Python.
    """
    lines = (ROOT / name).read_text().splitlines()
    pins = {}
    for requirement in (Requirement(line) for line in lines if line and line[0] != "#"):
        (specifier,) = requirement.specifier
        pins.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return pins


def test_package_and_metadata_agree_on_the_version(metadata):
    assert metadata["version"] == tfquant.__version__


def test_every_folder_of_code_is_packaged(metadata):
    folders = {path.parent.relative_to(ROOT) for path in MODULES}
    places = {
        Path(metadata["package_dir"].get(package, package.replace(".", "/")))
        for package in metadata["packages"]
    }
    assert places == folders


def test_an_installation_has_one_package_at_its_top_level(metadata):
    """Guards against a package named `models`, which would conflict with a user's own."""
    assert {package.partition(".")[0] for package in metadata["packages"]} == {"tfquant"}


def test_every_file_of_data_is_packaged(metadata):
    data = [path.relative_to(ROOT) for path in _tracked_files() if path.suffix != ".py"]
    data = {path for path in data if path.parts[0] in ("tfquant", "models")}
    packaged = {
        Path(*package.split("."), name)
        for package, names in metadata["package_data"].items()
        for name in names
    }
    assert packaged == data


@pytest.mark.parametrize("stack", STACKS)
def test_every_requirement_is_pinned_to_a_version_it_allows(metadata_of, stack):
    name, extras = STACKS[stack]
    pins, metadata = _pins(name), metadata_of(stack)
    optional = (metadata["extras_require"][extra] for extra in extras)
    texts = sum(optional, metadata["install_requires"])
    for requirement in map(Requirement, texts):
        for version in pins[canonicalize_name(requirement.name)]:
            assert version in requirement.specifier, requirement


@pytest.mark.parametrize(
    "platform, stack",
    [
        (("linux", "x86_64", "3.9"), "2.17"),
        (("linux", "x86_64", "3.12"), "2.17"),
        (("linux", "x86_64", "3.13"), "2.20"),
        (("linux", "aarch64", "3.12"), "2.20"),
        (("darwin", "arm64", "3.12"), "2.20"),
        (("darwin", "x86_64", "3.11"), "2.14"),
        (("win32", "AMD64", "3.12"), "2.20"),
    ],
)
def test_every_platform_gets_one_stack(metadata, platform, stack):
    names = ("sys_platform", "platform_machine", "python_version")
    here = dict(zip(names, platform))
    chosen = [r for r in map(Requirement, metadata["install_requires"])
              if r.marker is None or r.marker.evaluate(here)]  # fmt: skip
    (tensorflow,) = (r for r in chosen if r.name == "tensorflow")
    assert stack in str(tensorflow.specifier)
    assert len({r.name for r in chosen}) == len(chosen)
    operations = [r.name for r in chosen if r.name.startswith("tensorflow-compression")]
    assert len(operations) == (stack != "2.20")


def test_importing_the_package_does_not_import_tensorflow(fresh_python):
    assert fresh_python("import sys, tfquant; print('tensorflow' in sys.modules)") == "False\n"


def test_every_module_has_a_docstring():
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def _unannotated(tree: ast.Module | ast.ClassDef) -> list[tuple[int, str]]:
    """Returns (line, name) of what lacks a type: parameters, and functions without that of the
    result.

    Looks at the public functions of a module, and at the public methods, `__init__` and `__call__`
    of its classes. Exempt are `self`, `cls`, the result of `__init__`, and functions in functions.
    """
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found += _unannotated(node)
        elif isinstance(node, ast.FunctionDef) and (
            node.name in ("__init__", "__call__") or not node.name.startswith("_")
        ):
            of = node.args
            given = [*of.posonlyargs, *of.args, of.vararg, *of.kwonlyargs, of.kwarg]
            found += [
                (node.lineno, f"{node.name}: {argument.arg}")
                for argument in given
                if argument and not argument.annotation and argument.arg not in ("self", "cls")
            ]
            if not node.returns and node.name != "__init__":
                found.append((node.lineno, f"{node.name}: the result"))
    return found


def test_every_public_function_states_the_types_of_its_parameters_and_its_result():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, name in _unannotated(ast.parse(path.read_text()))
    ]
    assert not found, "\n".join(["without a type:", *found])


def test_a_missing_type_is_found_in_public_functions_and_methods_alone():
    code = """
def half(x: int, *rest, most=1, **more): ...
def _private(x): ...
class Layer:
    def __init__(self, width): ...
    def call(self, x) -> int:
        def inner(y): ...
    @classmethod
    def parse(cls, text: str) -> Layer: ...
"""
    assert _unannotated(ast.parse(code)) == [
        (2, "half: rest"), (2, "half: most"), (2, "half: more"), (2, "half: the result"),
        (5, "__init__: width"), (6, "call: x"),
    ]  # fmt: skip


# A docstring starts with a verb or a noun. A subordinate clause or a preposition makes the reader
# guess the subject.
_FORBIDDEN_OPENINGS = re.compile(
    r"(What|Which|Who|Whose|Whom|Whether|Where|When|Why|How|Of|So many|So much|No matter|Nobody|"
    r"Somebody|Anybody|Says|Tells)\b",
    re.IGNORECASE,
)


def _docstrings(path: Path) -> list[tuple[int, str]]:
    """Returns (line, text) of each docstring in a Python file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, documented)]
    return [(n.body[0].lineno, text) for n in nodes if (text := ast.get_docstring(n))]


@pytest.mark.slow
def test_docstrings_start_with_a_verb_or_a_noun():
    found = []
    for path in _tracked_files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py":
            found += [
                f"{name}:{line}: {text.splitlines()[0]}"
                for line, text in _docstrings(path)
                if _FORBIDDEN_OPENINGS.match(text)
            ]
    assert not found, "\n".join(["docstrings with a forbidden opening:", *found])


@pytest.mark.slow
def test_every_python_file_is_valid_python_3_9():
    for path in _tracked_files():
        if path.suffix == ".py":
            ast.parse(path.read_text(), filename=str(path), feature_version=(3, 9))


@pytest.mark.slow
def test_no_file_names_a_folder_of_its_authors_machine():
    # Absolute paths of a developer's machine, and a data folder next to the checkout.
    foreign = re.compile(rb"(?<![\w.~-])/(home|root|Users|opt|work)/[\w.]|\.\./" + rb"shared\b")
    named = {
        str(path.relative_to(ROOT)): match[0]
        for path in _tracked_files()
        if ".ci" not in path.parts and (match := foreign.search(path.read_bytes()))
    }
    assert not named
