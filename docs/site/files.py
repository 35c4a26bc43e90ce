"""What the site has in addition to its pages.

- Each page's Markdown under the page's own name: ``docs/guide/tasks.md`` next to ``docs/guide/tasks.html``.
- ``llms.txt``, made from the one that the service sends, with links to the Markdown.
- ``index.html`` next to each ``README.html``, so that a folder's address shows its README, as on GitHub.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SERVICE_LLMS_TXT = "service/api/llms.txt"


def site_llms_txt(text: str, pages: Path) -> str:
    """Turn the service's introduction for language models into the site's.

    The service's has links to its own endpoints and names the pages, since a service does not send them. On the site it
    is the other way round.

    Args:
        text: the service's introduction.
        pages: the folder in which the Markdown of the pages is.
    """
    introduction, _, _ = text.partition("## API\n")
    lines = []
    for page, description in re.findall(r"^- `(docs/.+?)`: (.*)$", text, re.MULTILINE):
        title = pages.joinpath(page).read_text().partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({page}): {description}\n")
    return f"{introduction}## Documentation\n\n{''.join(lines)}"


def add_files(app: Sphinx, failure: Exception | None) -> None:
    if failure or app.builder.format != "html":
        return
    source, target = Path(app.srcdir), Path(app.outdir)
    for name in app.env.found_docs:
        shutil.copyfile(source / f"{name}.md", target / f"{name}.md")
        if name.endswith("README"):
            shutil.copyfile(target / f"{name}.html", target.joinpath(name).with_name("index.html"))
    text = (source / SERVICE_LLMS_TXT).read_text()
    target.joinpath("llms.txt").write_text(site_llms_txt(text, source))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
