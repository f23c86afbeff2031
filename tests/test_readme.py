"""Every command and every program of the README and of the guide, the packages' docstrings, run as printed."""

import importlib
import pkgutil
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import dvae
from dvae.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CHAPTERS = ["dvae", *(module.name for module in pkgutil.walk_packages(dvae.__path__, "dvae.") if module.ispkg)]
GUIDE = "\n\n".join(importlib.import_module(name).__doc__ or "" for name in CHAPTERS)


def programs(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def commands(text):
    blocks = re.findall(r"```bash\n(dvae .*?)```", text, flags=re.DOTALL)
    return [command for block in blocks for command in re.sub(r"\\\n\s*", "", block).strip().splitlines()]


PROGRAMS = programs(README) + programs(GUIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, in which configs/ lies and the programs are saved under the names that they give themselves."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "configs").symlink_to(ROOT / "configs")
    for program in PROGRAMS:
        if name := re.match(r"# (my_\w+\.py)\n", program):
            (folder / name[1]).write_text(program)
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_program_runs(program, folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = folder / "program.py"
    path.write_text(program)
    runpy.run_path(str(path))


def test_commands_run_one_after_the_other(folder, monkeypatch):
    """In one test, because later ones read what earlier ones left, and tests of one file may run in several processes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for command in dict.fromkeys(commands(README) + commands(GUIDE)):
        assert main(shlex.split(command)[1:]) == 0, command


def test_extension_recipes_are_short():
    recipes = [program for program in PROGRAMS if program.startswith("# my_")]
    assert len(recipes) == 4
    assert max(len(recipe.splitlines()) for recipe in recipes) < 30


def test_table_of_estimators_is_the_commands(capsys):
    assert main(["estimators", "--markdown"]) == 0
    assert capsys.readouterr().out in README
    assert main(["estimators"]) == 0
    assert "DisARM" in capsys.readouterr().out


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    text = README + GUIDE
    targets = set(re.findall(r"`make ([a-z-]+)[`\s]", text)) | set(re.findall(r"^make ([a-z-]+)$", text, flags=re.MULTILINE))
    assert {"train", "test", "lint"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
