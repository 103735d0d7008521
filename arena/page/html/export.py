"""HTML of a dataset that was made: how large it is, and the link to the file."""

from __future__ import annotations

import html

from arena.exports.archive import DatasetArchive
from arena.i18n import Words
from arena.page.html.panes import status_html


def made_html(made: DatasetArchive, say: Words) -> str:
    """What was made, and where to download it; the address is relative, as the page may lie
    under a path.
    """
    name = html.escape(made.name)
    return (
        f"{status_html(say('export.done', rows=made.num_rows), say, tone='good')}"
        f'<p><a class="download" href="api/exports/{name}" download="{name}.zip">'
        f"{html.escape(say('export.download'))}</a></p>"
    )
