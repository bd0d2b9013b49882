"""Settings of the documentation site: ``make docs`` builds it in build/docs."""

from __future__ import annotations

from digestry import __version__

project = "digestry"
author = "The digestry authors"
release = version = __version__
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["schemas"]

# Markdown, with links to the headings of pages as the forges that show it make them.
myst_heading_anchors = 4

# The reference is made from the docstrings and the annotations of the public names.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False

# Nothing is loaded from another host: the theme brings its styles, and the fonts are the reader's own.
html_theme = "furo"
html_title = f"digestry {release}"
html_copy_source = False
html_show_sphinx = False
