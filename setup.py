"""Package tfquant: learned image compression with any quantization surrogate, in TensorFlow.

The constraints files pin the installed versions. The bounds here state only what the code needs.

A platform has a default stack (`STACKS`). The environment variable TFQUANT_STACK selects another
one when the package is built or installed from a checkout: `TFQUANT_STACK=tf214 pip install -e .`
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (ROOT / "tfquant" / "__init__.py").read_text(), re.MULTILINE
).group(1)

# Compatible versions of TensorFlow, Keras 2, TensorFlow Probability and the coder's operations.
STACKS = {
    "tf217": (
        "tensorflow~=2.17.1",
        "tf-keras~=2.17.0",
        "tensorflow-probability~=0.24.0",
        "tensorflow-compression-ops==2.17.0",
        "numpy<2",
        "setuptools<81",  # for tensorboard 2.17, which imports pkg_resources
    ),
    "tf214": (
        "tensorflow~=2.14.0",
        "tensorflow-probability~=0.22.0",
        "tensorflow-compression==2.14.1",
        "numpy<2",
        "setuptools<81",
    ),
    # No wheel of the operations exists for these versions, so the portable coder replaces them.
    "tf221": (
        "tensorflow>=2.20,<2.22",
        "tf-keras>=2.20,<2.22",
        "tensorflow-probability>=0.25",
        "tensorboard",
        "numpy",
    ),
}
_NATIVE = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.13'"
_INTEL_MAC = "sys_platform == 'darwin' and platform_machine == 'x86_64'"
PLATFORMS = {
    "tf217": _NATIVE,
    "tf214": _INTEL_MAC,
    "tf221": "(sys_platform != 'darwin' or platform_machine != 'x86_64') and "
    "(sys_platform != 'linux' or platform_machine != 'x86_64' or python_version >= '3.13')",
}

# The files of each pretrained model.
PRETRAINED = [
    f"photographs/{model}/{name}"
    for model in ("q10", "q38", "q67")
    for name in ("tfquant.json", "weights.tfqw", "tables.npz", "integers.npz")
]


def stack_requirements():
    """Returns the packages of the selected stack, or of each platform's default stack."""
    chosen = os.environ.get("TFQUANT_STACK")
    if chosen:
        if chosen not in STACKS:
            raise SystemExit(f"TFQUANT_STACK={chosen!r}; known: {', '.join(STACKS)}")
        return list(STACKS[chosen])
    return [f"{package}; {PLATFORMS[name]}" for name in STACKS for package in STACKS[name]]


setup(
    name="tfquant",
    version=VERSION,
    description="Learned image compression with any quantization surrogate, from training to bits",
    license="Apache-2.0",
    python_requires=">=3.9,<3.14",
    # The folder `models/` is installed as `tfquant.models`, so that the environment gets no
    # top-level package `models`.
    packages=[*find_packages(include=["tfquant", "tfquant.*"]), "tfquant.models"],
    package_dir={"tfquant.models": "models"},
    package_data={
        "tfquant": ["py.typed"],
        "tfquant.evaluation": ["paper_tables.csv", "view.html"],
        "tfquant.pretrained": ["photographs/models.json", *PRETRAINED],
    },
    install_requires=[
        "absl-py",
        "bjontegaard>=1.3",
        "scipy",
        "matplotlib",
        "pillow",
        *stack_requirements(),
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]; sys_platform == 'linux'"],
        "test": ["pytest", "pytest-xdist", "ruff", "mypy"],
        "docs": ["sphinx>=7.4", "myst-parser>=3", "furo"],
        "digits": ["scikit-learn"],
        "tfds": ["tensorflow-datasets~=4.9.3"],
        "heif": ["pillow-heif>=1.1"],
    },
    entry_points={"console_scripts": ["tfquant = tfquant.cli:main"]},
)
