"""Entry point of `python -m tfquant.analysis`."""

import sys

from tfquant import stack

stack.prepare("tfquant.analysis")

from tfquant.analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())
