"""Claims about the repository as a whole: packaging, imports, documentation, portability."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfquant

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for top in ("tfquant", "models") for path in (ROOT / top).rglob("*.py"))


def _tracked_files() -> list[Path]:
    """Every file that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    paths = (ROOT / name for name in listing.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.fixture
def metadata(monkeypatch) -> dict:
    """What setup.py hands to setuptools."""
    handed = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: handed.update(keywords))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return handed


def _pins() -> dict[str, str]:
    """Package -> version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_package_and_metadata_agree_on_the_version(metadata):
    assert metadata["version"] == tfquant.__version__


def test_every_folder_of_code_is_packaged(metadata):
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES}
    assert set(metadata["packages"]) == folders


def test_every_requirement_is_pinned_to_a_version_it_allows(metadata):
    pins = _pins()
    texts = metadata["install_requires"] + sum(metadata["extras_require"].values(), [])
    for requirement in map(Requirement, texts):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_importing_the_package_does_not_import_tensorflow(fresh_python):
    assert fresh_python("import sys, tfquant; print('tensorflow' in sys.modules)") == "False\n"


def test_every_module_says_what_lives_there():
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_every_python_file_is_valid_python_3_9():
    for path in _tracked_files():
        if path.suffix == ".py":
            ast.parse(path.read_text(), filename=str(path), feature_version=(3, 9))


def test_no_file_names_a_folder_of_its_authors_machine():
    # Absolute paths of a developer's machine, and a data folder beside the checkout.
    foreign = re.compile(rb"(?<![\w.~-])/(home|root|Users|opt|work)/[\w.]|\.\./" + rb"shared\b")
    named = {
        str(path.relative_to(ROOT)): match[0]
        for path in _tracked_files()
        if ".ci" not in path.parts and (match := foreign.search(path.read_bytes()))
    }
    assert not named
