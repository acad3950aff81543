"""Settings of Sphinx: `python -m sphinx -W docs build/docs` makes the pages."""

import sys
from pathlib import Path

import fastlstm

sys.path.insert(0, str(Path(__file__).parent))

project, author = "fastlstm", "the fastlstm authors"
version = release = fastlstm.__version__
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "run_page"]
templates_path = ["templates"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["fastlstm.css"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_typehints = "none"  # numpydoc's sections have the types
autodoc_member_order = "bysource"


def setup(app):
    app.connect("autodoc-skip-member", skips)


def skips(app, what, name, member, skip, options):
    """Leave out what estimators have from scikit-learn: its docstrings refer to its own pages."""
    return True if str(getattr(member, "__module__", "")).startswith("sklearn.") else None
