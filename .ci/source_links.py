"""A hook of mkdocs: links from the pages to files of the repository become plain text.

On the site there are no such files; where the pages are read in the repository, the links work. A link to a file
that does not exist is a warning, so that ``mkdocs build --strict`` stops.
"""

import logging
import re
from pathlib import Path

LOG = logging.getLogger("mkdocs.hooks.source_links")
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page, **_) -> str:
    """The text of a page without its links to files outside docs/."""
    if page.file.abs_src_path is None:  # generated
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def plain(link: re.Match) -> str:
        if not (folder / link["target"]).exists():
            LOG.warning("%s: found a link to %s; no such file", page.file.src_uri, link["target"])
        return link["text"]

    return LINK.sub(plain, markdown)
