"""The site is built from the docstrings: every equation drawn, every link within it, nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pdoc")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, ROOT / ".ci" / "docs.py", folder], check=True)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.suffix in (".html", ".js")}


def test_chapters_are_there(site):
    assert {"dvae.html", "dvae/estimators.html", "dvae/lab/certify.html", "dvae/training.html", "dvae/cli.html"} <= set(site)


def test_equations_are_drawn_by_the_browser_alone(site):
    assert "<math" in site["dvae/estimators.html"]
    for name, page in site.items():
        assert not re.search(r"equation\d+drawn|asteriskdrawn", page), name
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']https?:", page), name


def test_pictures_are_within_the_pages(site):
    for name, page in site.items():
        assert not re.search(r"<img[^>]*src=[\"'](?!data:)", page), name


def test_years_of_references_begin_no_lists(site):
    for name, page in site.items():
        assert not re.search(r'<ol start="(19|20)\d\d"', page), name


def test_no_page_names_a_folder_of_the_machine(site):
    for name, page in site.items():
        assert str(ROOT) not in page, name
        assert str(Path.home()) + "/" not in page, name


def test_links_lead_somewhere(site):
    for name, page in site.items():
        for target in re.findall(r'href="([^"#:]+\.html)', page):
            path = (Path("/") / name).parent.joinpath(target)
            assert path.resolve().relative_to("/").as_posix() in site, f"{name}: {target}"
