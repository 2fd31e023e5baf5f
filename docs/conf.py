"""How Sphinx builds the documentation: ``make docs``."""

from internvl_bridge._version import __version__

project = "internvl-bridge"
author = "the internvl-bridge contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"internvl-bridge {__version__}"
html_extra_path = ["json-output.schema.json"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
