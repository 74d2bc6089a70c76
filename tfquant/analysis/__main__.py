"""`python -m tfquant.analysis`."""

import os
import sys

# Read when TensorFlow loads; level 3 hides the plugin errors that 2.14 prints on every machine.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tfquant.analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())
