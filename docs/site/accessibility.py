"""What screen readers and keyboards need and the generator leaves out; axe found it."""

import re
from typing import Any

from sphinx.application import Sphinx

CHINESE = "zh-CN"
SCROLLED = re.compile(r'(<pre|<div class="table-wrapper[^"]*")')
AFTER_THE_THEME = 900
"""The theme's own listener, which draws the sidebar, has priority 500."""


def complete(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Name the language of a translation, give captions a level, and let the keyboard scroll code and tables."""
    if page.endswith(f".{CHINESE}"):
        context["language"] = CHINESE
    sidebar: str = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = sidebar.replace(' role="heading"', ' role="heading" aria-level="2"')
    if "body" in context:
        context["body"] = SCROLLED.sub(r'\1 tabindex="0"', context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", complete, priority=AFTER_THE_THEME)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
