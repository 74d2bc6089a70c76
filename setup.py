"""Package tfquant: learned image compression with any quantization surrogate, in TensorFlow.

`constraints.txt` pins what gets installed; the bounds here say only what the code needs.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (ROOT / "tfquant" / "__init__.py").read_text(), re.MULTILINE
).group(1)

setup(
    name="tfquant",
    version=VERSION,
    description="Learned image compression with any quantization surrogate, from training to bits",
    license="Apache-2.0",
    python_requires=">=3.9,<3.12",
    packages=find_packages(include=["tfquant", "tfquant.*", "models", "models.*"]),
    install_requires=[
        "absl-py",
        "bjontegaard>=1.3",
        "scipy",
        "matplotlib",
        "numpy<2",
        "pillow",
        "tensorflow~=2.14.0",
        "tensorflow-compression==2.14.1",
        "tensorflow-probability~=0.22.0",
    ],
    extras_require={
        "test": ["pytest", "pytest-xdist", "ruff"],
        "digits": ["scikit-learn"],
        "tfds": ["tensorflow-datasets~=4.9.3"],
    },
    entry_points={"console_scripts": ["tfquant = tfquant.cli:main"]},
)
