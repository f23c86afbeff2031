"""Every command and every program of the README, run as printed."""

import itertools
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from dvae.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [block.strip().splitlines() for block in re.findall(r"```bash\n(dvae .*?)```", README, flags=re.DOTALL)]


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
    for command in itertools.chain.from_iterable(COMMANDS):
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
    targets = set(re.findall(r"`make ([a-z-]+)`", README)) | set(re.findall(r"^make ([a-z-]+)$", README, flags=re.MULTILINE))
    assert {"train", "test", "lint"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
