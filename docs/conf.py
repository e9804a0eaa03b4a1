"""Sphinx configuration of the documentation: Markdown pages, and a reference generated from the installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

from dbnd import __version__

project = "databand"
author = "the databand contributors"
copyright = "the databand contributors, Apache-2.0"  # noqa: A001  Sphinx's own name
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"databand {release}"
html_static_path: list[str] = []
exclude_patterns = ["_build"]
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"

generated.write(Path(__file__).parent / "reference")
