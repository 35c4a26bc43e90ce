"""The sidebar, made from docs/README.md: a part for each section, an entry for each page that the section lists.

Sphinx takes a sidebar from ``toctree`` directives, which GitHub would show as code. So these are added to the parsed
pages.
"""

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

HOME = "README"
INDEX = "docs/README"
RECORDS = "docs/design/decisions"
BEFORE_SPHINX_COLLECTS = 100
"""Sphinx's own listeners, which collect toctrees, have priority 500."""

Entry = tuple[str | None, str]
"""A title, or none to show the page's own, and the page's name."""


def parts(index: str) -> dict[str, list[Entry]]:
    """What each section of docs/README.md lists, by the first word of its heading.

    Both introductions have the product's name as their title, so they are shown with the text of the link.
    """
    pieces = re.split(r"^## (\w+).*$", index, flags=re.MULTILINE)
    found = {}
    for part, text in zip(pieces[1::2], pieces[2::2], strict=True):
        entries: list[Entry] = []
        for title, link in re.findall(r"^- \[(.+?)\]\((.+?)\.md\)", text, re.MULTILINE):
            name = os.path.normpath(f"docs/{link}")
            if name == HOME:
                entries += [(title, "self"), (None, INDEX)]
            else:
                entries.append((title if name.startswith(HOME) else None, name))
        found[part] = entries
    return found


def toctree(page: str, entries: list[Entry], caption: str | None = None) -> nodes.Node:
    """What Sphinx makes from a hidden ``toctree`` directive on ``page``."""
    return addnodes.toctree(
        parent=page,
        entries=entries,
        includefiles=[name for _, name in entries if name != "self"],
        rawentries=[],
        caption=caption,
        rawcaption=caption,
        maxdepth=-1,
        titlesonly=True,
        hidden=True,
        includehidden=False,
        glob=False,
        numbered=0,
    )


def add_toctrees(app: Sphinx, doctree: nodes.document) -> None:
    """Let the home page lead to everything that docs/README.md lists, and the list of records to each record."""
    page = app.env.docname
    section = doctree[0]
    if page == HOME:
        for part, entries in parts(Path(app.srcdir, f"{INDEX}.md").read_text()).items():
            section += toctree(page, entries, part)
        app.env.note_dependency(f"{INDEX}.md")
    elif page == f"{RECORDS}/README":
        records = sorted(name for name in app.env.found_docs if name.startswith(f"{RECORDS}/0"))
        section += toctree(page, [(None, name) for name in records])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_toctrees, priority=BEFORE_SPHINX_COLLECTS)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
