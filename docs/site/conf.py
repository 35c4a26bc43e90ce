"""How Sphinx turns the documentation into a site (``make docs``).

The pages are plain Markdown, which GitHub shows as well. What only the site needs is in this folder: ``navigation.py``
makes the sidebar from docs/README.md, ``files.py`` adds the files that are not pages, and ``accessibility.py`` what
screen readers and keyboards need.
"""

import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
sys.path.append(str(FOLDER))

project = "Redraft"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
language = "en"

# Pages are found from the root of the repository, so every relative link leads to the same place as on GitHub.
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "bench/*/README.md"]
exclude_patterns = [entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name not in ("bench", "docs")]
extensions = ["myst_parser", "navigation", "files", "accessibility"]

# MyST's additions to Markdown are off, since GitHub would show their marks.
myst_disable_syntax = ["myst_block_break", "myst_line_comment", "myst_role", "myst_target"]
myst_heading_anchors = 6
myst_heading_anchors_html_ids = True  # A link to a heading works on both.

nitpicky = True
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]  # Examples leave fields out with "…", which is not JSON.

linkcheck_ignore = [r"http://127\.0\.0\.1"]  # a running service

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
