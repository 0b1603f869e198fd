"""Settings of the site, which `make docs` builds."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# By PyTorch Geometric where it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import generate  # noqa: E402 - found by the line above

import spgrad  # noqa: E402

project = "spgrad"
author = "The spgrad developers"
release = spgrad.__version__
language = "en"

extensions = [
    "breathe",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # a renderer of formulas is a function, which is not kept

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

linkcheck_ignore = [r"\.\./_images/"]  # put there by the builder of the site alone
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
autodoc_typehints_format = "short"
autosummary_generate = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]
breathe_projects = {"spgrad": str(generate.DOXYGEN / "xml")}
breathe_default_project = "spgrad"

html_theme = "pydata_sphinx_theme"
html_title = f"spgrad {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 9,
    "secondary_sidebar_items": {"index": [], "**": ["page-toc"]},
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "start": [], "switching": [], "limits": [], "errors": []}
project_copyright = "The spgrad developers, Apache-2.0"


def setup(app: Sphinx) -> None:
    """Write the pages that are made of something else, and let browsers draw the formulas."""
    generate.all_pages(quick=not app.tags.has("full"))
    generate.add_formulas(app)
