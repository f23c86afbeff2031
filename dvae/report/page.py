"""A page of HTML that needs nothing but itself: sections of tables, pictures, charts and text.

Whatever it is given is text, and is escaped: names come from users' files. No script but the page's own can run, and nothing can be
loaded, for the page itself forbids that to the browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.report.pictures import png_of

__all__ = ["Block", "Cell", "Chart", "Gallery", "Listing", "Note", "Picture", "Section", "Table", "page", "page_file"]


class Cell(NamedTuple):
    """What stands in a table, and the number that it is sorted by; None for text."""

    text: str
    value: float | None = None


class Table(NamedTuple):
    """Rows below their columns' names, sorted by whichever is clicked; the rows of ``means`` are set off."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    means: Collection[int] = ()


class Picture(NamedTuple):
    """A picture [C, H, W] in [0, 1], its title, and what is to be seen in words."""

    title: str
    picture: Tensor
    alt: str


class Chart(NamedTuple):
    """A figure of Plotly's, ``data`` and ``layout``, its title, and what is to be seen in words."""

    title: str
    figure: Mapping[str, Any]
    alt: str


class Note(NamedTuple):
    """A line about something, such as why it is not there."""

    title: str
    text: str


class Listing(NamedTuple):
    """Text as it is, line by line; a long one is folded up until it is asked for."""

    title: str
    text: str


class Gallery(NamedTuple):
    """Blocks side by side, as many in a row as there is room for."""

    blocks: Sequence[Block]


Block = Table | Picture | Chart | Note | Listing | Gallery


class Section(NamedTuple):
    """A part of a page: a word for links to it, its title, a line about it, and what is in it."""

    name: str
    title: str
    about: str
    blocks: Sequence[Block]


@contextmanager
def page_file(path: str | Path) -> Iterator[Path]:
    """A temporary file for a page, which is written whole or not at all, see :func:`dvae.files.written_whole`.

    What would keep the page from being written is found before the work for it is done.

    Arguments:
        path: the ``.html`` file.

    Raises:
        InputError: the file is no ``.html`` file, it cannot be written, or Plotly is not installed
            (``pip install 'discrete-vae[report]'``).
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a page is a .html file, got {path}")
    if find_spec("plotly") is None:
        raise InputError(_MISSING)
    with written_whole(path) as temporary:
        yield temporary


def page(title: str, about: Sequence[str], sections: Sequence[Section]) -> str:
    """The HTML of a page.

    Arguments:
        title: of the page.
        about: lines below it.
        sections: in their order.

    Raises:
        InputError: there are charts and Plotly is not installed (``pip install 'discrete-vae[report]'``).
    """
    scripts = [*([_plotly()] if any(map(_has_charts, sections)) else []), _own("page.js")]
    links = "".join(f'<a href="#{escape(own.name)}">{escape(own.title)}</a>' for own in sections)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_own('page.css')}</style>",
            "</head>",
            "<body>",
            f"<header><h1>{escape(title)}</h1>{''.join(f'<p>{escape(line)}</p>' for line in about)}</header>",
            f'<nav aria-label="Parts of this page">{links}</nav>',
            "<main>",
            *map(_section, sections),
            "</main>",
            "<noscript><p>Charts are drawn and tables sorted by this page's scripts, which do not run here.</p></noscript>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        ]
    )


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do: run these scripts, to the letter, and load nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    run = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {run}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _own(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").replace("\r\n", "\n")


_MISSING = "charts need plotly, which is not installed: pip install 'discrete-vae[report]'"


def _plotly() -> str:
    """Plotly's library of charts, 5 MB."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InputError(_MISSING) from None
    script: str = get_plotlyjs()
    return script.replace("\r\n", "\n")


def _has_charts(section: Section) -> bool:
    return any(isinstance(block, Chart) for block in _flat(section.blocks))


def _flat(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Gallery):
            yield from _flat(block.blocks)
        else:
            yield block


def _section(section: Section) -> str:
    about = f"<p>{escape(section.about)}</p>" if section.about else ""
    title = f"<h2>{escape(section.title)}</h2>"
    return f'<section id="{escape(section.name)}">{title}{about}\n' + "\n".join(map(_block, section.blocks)) + "\n</section>"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return _picture(block)
    if isinstance(block, Chart):
        return _chart(block)
    if isinstance(block, Note):
        return f'<p class="note"><b>{escape(block.title)}</b> {escape(block.text)}</p>'
    if isinstance(block, Listing):
        return _listing(block)
    return '<div class="gallery">\n' + "\n".join(map(_block, block.blocks)) + "\n</div>"


def _table(table: Table) -> str:
    texts = [all(row[place].value is None for row in table.rows) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_TEXT if is_text else ""}><button type="button">{escape(name)}</button></th>'
        for name, is_text in zip(table.columns, texts, strict=True)
    )
    rows = "\n".join(_row(row, texts, index in table.means) for index, row in enumerate(table.rows))
    # What scrolls can be reached from the keyboard.
    frame = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.title)}">'
    drawn = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    return f'<figure class="table"><figcaption>{escape(table.title)}</figcaption>{frame}{drawn}</div></figure>'


def _row(cells: Sequence[Cell], texts: Sequence[bool], is_mean: bool) -> str:
    columns = []
    for index, (cell, is_text) in enumerate(zip(cells, texts, strict=True)):
        key = f' data-value="{cell.value!r}"' if cell.value is not None and math.isfinite(cell.value) else ""
        tag = '<th scope="row"' if index == 0 else "<td"
        columns.append(f"{tag}{_TEXT if is_text else ''}{key}>{escape(cell.text)}</{tag[1:3]}>")
    return f"<tr{_MEAN if is_mean else ''}>{''.join(columns)}</tr>"


_MEAN, _TEXT = ' class="mean"', ' class="text"'


def _picture(picture: Picture) -> str:
    height, width = picture.picture.shape[-2:]
    data = base64.b64encode(png_of(picture.picture)).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" width="{width}" height="{height}">'
    return f"<figure><figcaption>{escape(picture.title)}</figcaption>{image}</figure>"


def _chart(chart: Chart) -> str:
    # No sign in it can end the element that it is in.
    content = json.dumps(chart.figure).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    height = f' style="height: {chart.figure["layout"]["height"]}px"' if "height" in chart.figure.get("layout", {}) else ""
    data = f'<script type="application/json">{content}</script>'
    drawn = f'<div class="plot"{height} role="img" aria-label="{escape(chart.alt)}">{data}</div>'
    return f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{drawn}</figure>'


_LONG = 6  # lines


def _listing(listing: Listing) -> str:
    text = f"<pre>{escape(listing.text)}</pre>"
    if listing.text.count("\n") < _LONG:
        return f'<div class="listing"><p><b>{escape(listing.title)}</b></p>{text}</div>'
    return f"<details><summary>{escape(listing.title)}</summary>{text}</details>"
