"""A page is one file that opens without a network, runs no script but its own, and can be read and sorted."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

from dvae.errors import InputError
from dvae.report.charts import Band, band_chart, curve_chart
from dvae.report.curves import Curve
from dvae.report.page import Cell, Chart, Gallery, Listing, Note, Picture, Section, Table, page, page_file

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
RED = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1).expand(3, 4, 6)
BANDS = {"one": Band([1, 2, 3], [0.5, 0.25, 0.125], [0.1, 0.1, 0.0]), "two": Band([1, 2], [0.5, 0.25], [0.0, 0.0])}


def table(*values):
    return Table("Figures", ["run", "ELBO"], [[Cell(f"run {n}"), cell] for n, cell in enumerate(values)], means=[0])


def of(*blocks):
    return [Section("part", "A part", "What it is.", blocks)]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_whatever_is_given_is_text():
    figure = band_chart({HOSTILE: BANDS["one"], "two": BANDS["two"]}, HOSTILE, HOSTILE)
    cells = Table(HOSTILE, [HOSTILE], [[Cell(HOSTILE)]])
    blocks = [
        cells,
        Picture(HOSTILE, RED, HOSTILE),
        Chart(HOSTILE, figure, HOSTILE),
        Note(HOSTILE, HOSTILE),
        Gallery([Listing(HOSTILE, HOSTILE), Listing(HOSTILE, "\n" * 20 + HOSTILE)]),
    ]
    found = Elements(page(HOSTILE, [HOSTILE], [Section("a", HOSTILE, HOSTILE, blocks)]))
    assert [attributes.get("type") for attributes in found.named("script")] == ["application/json", None, None]
    assert len(found.named("img")) == 1
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert found.named("img")[0]["alt"] == HOSTILE
    assert "".join(found.text).count(HOSTILE) >= 10


def test_a_page_without_charts_needs_no_plotly(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert len(page("Title", [], of(table(Cell("1", 1.0))))) < 20_000
    with pytest.raises(InputError, match=r"plotly, which is not installed: pip install 'discrete-vae\[report\]'"):
        page("Title", [], of(Chart("c", band_chart(BANDS, "x", "y"), "lines")))


def write_half(path):
    with page_file(path) as file:
        file.write_text("half")
        raise KeyError


def test_a_page_that_cannot_be_written_is_refused_before_the_work_and_leaves_no_file(tmp_path, monkeypatch):
    worked = []
    with pytest.raises(InputError, match=r"a page is a \.html file, got .*page\.txt"), page_file(tmp_path / "page.txt"):
        worked.append("on a file of another kind")
    (tmp_path / "old.html").write_text("old")
    with pytest.raises(InputError, match="cannot write"), page_file(tmp_path / "old.html" / "page.html"):
        worked.append("below a file")
    with pytest.raises(KeyError):
        write_half(tmp_path / "old.html")
    monkeypatch.setattr("dvae.report.page.find_spec", lambda name: None)
    with pytest.raises(InputError, match="charts need plotly"), page_file(tmp_path / "page.html"):
        worked.append("without plotly")
    assert worked == []
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.html", "old")]


def test_plotly_takes_the_charts():
    graph_objects = pytest.importorskip("plotly.graph_objects")
    curves = {"a": Curve([9, 19], [1.0, 2.0], [-9.0, -8.0], [0.5, 0.25]), "b": Curve([9], [1.0], [-7.0], [0.0])}
    for figure in (band_chart(BANDS, "x", "y", from_zero=True), curve_chart(curves, "nats", "seconds")):
        graph_objects.Figure(figure)  # knows every attribute, or raises


def test_a_run_has_one_colour_in_all_charts():
    looks = {"one": (5, 0), "two": (1, 0)}
    colours = [
        {trace["name"]: trace["line"]["color"] for trace in band_chart(bands, "x", "y", looks=looks)["data"] if "name" in trace}
        for bands in (BANDS, {"two": BANDS["two"]})
    ]
    assert colours[0]["two"] == colours[1]["two"] != colours[0]["one"]


# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

# What a user would do, done by a page around the page; it finds `page`, the document, and puts what it sees into `seen`.
AROUND = """<!DOCTYPE html><iframe id="inner" src="{page}" style="width: {width}px; height: 3000px; border: 0"></iframe>
<script>inner.onload = () => setTimeout(() => {{
  const page = inner.contentDocument, seen = {{}};
  {actions}
  document.body.append(Object.assign(document.createElement("output"), {{textContent: JSON.stringify(seen)}}));
}}, 1000);</script>"""
SEES = """
  seen.plots = page.querySelectorAll(".plot .main-svg .trace").length;
  seen.missing = [...page.images].filter((image) => !image.naturalWidth).length;
  seen.overflow = page.documentElement.scrollWidth - inner.contentWindow.innerWidth;
  const cells = () => [...page.querySelectorAll("tbody tr td")].map((cell) => cell.textContent);
  const button = page.querySelectorAll("th button")[1];
  seen.orders = [cells()];
  button.click(); seen.orders.push(cells());
  button.click(); seen.orders.push(cells());
  seen.sorted = button.closest("th").getAttribute("aria-sort");
"""


def browse(path, width):
    """What is seen on a page, and what the browser complains of; no name is looked up, and nothing connected to."""
    around = path.with_name("around.html")
    around.write_text(AROUND.format(page=path.name, width=width, actions=SEES))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
    budget = ["--virtual-time-budget=20000", f"--user-data-dir={path.parent / 'profile'}", "--dump-dom"]
    command = [CHROMIUM, *flags, *offline, *budget, around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (output,) = re.findall("<output>(.*?)</output>", done.stdout)
    return json.loads(html.unescape(output)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@in_browser
@pytest.mark.parametrize("width", [1400, 400])
def test_a_page_opens_without_a_network_and_its_tables_are_sorted(tmp_path, width):
    pytest.importorskip("plotly")
    numbers = table(Cell("-9.5 ± 1", -9.5), Cell(""), Cell("-110.25", -110.25), Cell("failed"), Cell("3", 3.0))
    wide = Table("Wide", [f"a long name {n}" for n in range(30)], [[Cell("text " * 5)] * 30])
    name = "run_" + "long" * 60
    figure = band_chart({HOSTILE: BANDS["one"], **BANDS}, "x", "y")
    sections = of(
        numbers, wide, Chart("Chart", figure, "Lines"), Picture("Picture", RED, "Red"), Listing("File", name), Note(name, ".")
    )
    path = tmp_path / "page.html"
    path.write_text(page(name, [], sections), encoding="utf-8")
    seen, complaints = browse(path, width)
    assert complaints == []
    assert seen["plots"] == 5  # three lines, two of them with a band
    assert seen["missing"] == 0
    assert seen["overflow"] == 0
    up = ["-110.25", "-9.5 ± 1", "3", "failed", ""]
    down = ["3", "-9.5 ± 1", "-110.25", "failed", ""]
    orders = [order[:5] for order in seen["orders"]]
    assert orders == [["-9.5 ± 1", "", "-110.25", "failed", "3"], up, down]
    assert seen["sorted"] == "descending"
