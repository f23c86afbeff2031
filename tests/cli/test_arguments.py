"""Flags: lists as a shell gives them, old names, and what was perhaps meant."""

import importlib
import io
import re
from contextlib import redirect_stdout

import pytest

from dvae.cli import COMMANDS, main, rl
from dvae.cli.arguments import names, numbers, renamed


@pytest.mark.parametrize("text", ["LOO,RELAX(coupled=False)", "[LOO, RELAX(coupled=False)]", "['LOO', 'RELAX(coupled=False)']"])
def test_lists_are_read_in_every_form(text):
    assert names(text) == ["LOO", "RELAX(coupled=False)"]
    assert names("LOO") == ["LOO"]
    assert names("RODEO(num_samples=3, size=2),LOO") == ["RODEO(num_samples=3, size=2)", "LOO"]
    assert numbers("0.45,.499") == numbers("[0.45, 0.499]") == [0.45, 0.499]


def test_old_names_work_and_warn(capsys):
    assert renamed(["--samples=3", "x", "--samples", "4"], {"samples": "num_samples"}) == [
        "--num_samples=3",
        "x",
        "--num_samples",
        "4",
    ]
    assert capsys.readouterr().err.count("--samples is called --num_samples now") == 2
    assert main(["certify", "REINFORCE", "--problems=1", "--samples=2000", "--latents=2"]) == 0
    assert capsys.readouterr().err.count("is deprecated") == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fitt"], "unknown command 'fitt'; did you mean fit?"),
        (["certify", "REINFORCE", "--phi_steps=0"], "phi_steps must be from 1 to 1000000, got 0"),
        (["certify", "LOO", "--init_args={num_sample: 3}"], "estimator: LOO has no argument num_sample; did you mean num_samples?"),
        (["certify", "RELAXX"], "got RELAXX; did you mean RELAX?"),
        (["evaluate", "x", "--num_sample=3"], "unknown argument --num_sample; did you mean --num_samples?"),
        (["fit", "--trainer.max_step=3"], "unknown argument --trainer.max_step; did you mean --trainer.max_steps?"),
        (["fit", "--model.num_latent=3"], "DiscreteVAE has no argument num_latent; did you mean --model.num_latents?"),
        (["fit", "--model.estimator=RELAXX"], "did you mean RELAX?"),
        (
            ["fit", "--model.estimator", "REBAR", "--model.estimator.temprature", ".1"],
            "REBAR has no argument temprature; did you mean --model.estimator.temperature?",
        ),
        (["fit", "--model.estimator.temperature=warm"], "--model.estimator.temperature must be a number, got 'warm'"),
        (["fit", "--model.lr=fast"], "--model.lr must be a number, got 'fast'"),
        (["fit", "--model.kl=exact"], "--model.kl must be sampled or analytic, got 'exact'"),
        (["fit", "--data.batchsize=3"], "did you mean --data.batch_size?"),
        (["fit", "--config=l3"], "config l3 does not exist, and the package has"),
        (["fit", "--without=Picture", "--runs=none"], "did you mean Pictures?"),
        (["fit", "--trainer.precision=bf16-true"], "trainer.precision must keep parameters in float32"),
        (["test"], "ckpt_path must be given"),
        (["predict"], "ckpt_path must be given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_in_one_sentence(arguments, sentence, refused, folder):
    assert sentence in refused(*arguments)
    assert not (folder / "runs").exists() or not list((folder / "runs").rglob("version_*"))


def help_page(command):
    page = io.StringIO()
    with redirect_stdout(page), pytest.raises(SystemExit) as stop:
        main(["help", *command.split()])
    assert stop.value.code in (0, None)
    return page.getvalue()


@pytest.mark.parametrize("command", [*COMMANDS, *(f"rl {name}" for name in rl.COMMANDS)])
def test_help_has_a_text_for_every_flag_and_no_markup(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = help_page(command)
    assert page.startswith(f"usage: dvae {command}")
    assert not re.search(r":\w+:`|``|\(type:|torch\.nn", page)
    assert max(map(len, page.splitlines())) <= 110
    lines = page.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"  -", line):
            assert re.search(r"\S  +\S", line.strip()) or following.startswith(" " * 10), line


def test_help_of_fit_is_short_and_lists_the_models_arguments(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = help_page("fit")
    assert len(page.splitlines()) < 250
    assert "--model.phi_warmup_steps" in page
    assert "REINFORCE, RELAX" in " ".join(page.split())
    assert "(default: 50)" in page


def test_every_command_is_a_file_that_has_a_main():
    for command in COMMANDS:
        name = "fit" if command in ("validate", "test", "predict") else command.replace("-", "_")
        assert callable(importlib.import_module(f"dvae.cli.{name}").main)


def test_completion_script_knows_commands_and_flags(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "certify" in script
    assert "--num_samples" in script
    assert "--model.entropy_bonus" in script  # of dvae rl fit


def test_completion_says_what_it_needs(refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install shtab" in refused("completion", "bash")
