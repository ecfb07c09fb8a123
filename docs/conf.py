"""The API reference, from docstrings: `make docs` builds it into docs/_build."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from modeling_glintru import __version__

project = "GLINT-RU for Hugging Face"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
smartquotes = False  # commands are pasted as they stand
html_show_sourcelink = False
html_show_copyright = False
templates_path: list[str] = []

default_role = "code"  # docstrings write code in single backticks
napoleon_google_docstring = True
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
myst_heading_anchors = 3


def write_commands(app: Any) -> None:
    """The `--help` of every command as a page, by Typer's own generator."""
    command = [sys.executable, "-m", "typer", "modeling_glintru.cli", "utils", "docs"]
    command += ["--name", "glintru", "--title", "Commands", "--output", f"{app.srcdir}/commands.md"]
    subprocess.run(command, check=True, capture_output=True)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_commands)
