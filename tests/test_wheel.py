"""Tests that the wheel contains the whole package and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW_FIXTURES = ("wheel",)  # see conftest.py
PARTS = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "tfquant", "models")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Returns the wheel built from a copy of the checkout, because a build writes into its
    folder.
    """
    pytest.importorskip("wheel")
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", "dist"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_a_wheel_has_every_file_of_the_package(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = set()
    for folder, place in (("tfquant", "tfquant"), ("models", "tfquant/models")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{place}/{path.relative_to(ROOT / folder).as_posix()}")
    assert "tfquant/py.typed" in expected
    assert packed == expected


def test_an_unpacked_wheel_works_without_the_checkout(wheel, tmp_path):
    """Tests that the commands of a wheel find their code and their data in it."""
    wheel.extractall(tmp_path)
    code = """if True:
        import importlib
        from tfquant import cli, models
        from tfquant.commands.program import PROGRAMS
        modules = [models, *map(importlib.import_module, PROGRAMS.values())]
        assert cli.main(["--version"]) == 0
        print(*(module.__file__ for module in modules), sep="\\n")
    """
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    version, *paths = done.stdout.splitlines()
    assert version.startswith("tfquant ")
    assert paths and all(path.startswith(str(tmp_path)) for path in paths)
