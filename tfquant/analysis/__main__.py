"""Entry point of `python -m tfquant.analysis`; see `cli.py`."""

import sys

from tfquant import startup

# Before the imports that need TensorFlow: if it does not load, the program ends with one line.
startup.prepare("tfquant.analysis")

from tfquant.analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())
