"""Configuration of the documentation site: `make docs` builds it with Sphinx."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import docstrings  # noqa: E402

import tfquant  # noqa: E402

project = "tfquant"
author = "the authors of tfquant"
project_copyright = "the authors of tfquant, Apache License 2.0"
release = version = tfquant.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes = False  # they would make a dash of the two hyphens of a flag

html_theme = "furo"
html_title = "tfquant"
html_static_path = ["static"]
html_css_files = ["wide.css"]

# Docstrings are plain text with code in backticks; `docstrings.py` makes reStructuredText of them.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # those of Keras are not in our format
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def setup(app):
    """Registers the conversion of docstrings, which comes before that of their sections."""
    app.connect("autodoc-process-docstring", docstrings.convert, priority=100)
    app.connect("autodoc-skip-member", docstrings.skip_foreign)
