"""The command answers before it imports what it does not need."""

import subprocess
import sys

import pytest

QUICK = [["--help"], ["--version"], ["help"], ["fitt"], ["curves", "nowhere"], ["sample", "--image", "3"]]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_torch_and_lightning_are_not_imported(arguments):
    code = f"import sys; from dvae.cli import main; main({arguments}); print({{'torch', 'pytorch_lightning'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", ["certify", "estimators", "toy"])
def test_commands_about_estimators_do_without_lightning(command):
    code = (
        "import sys\nfrom dvae.cli import main\n"
        f"try:\n    main(['help', '{command}'])\nexcept SystemExit:\n    print('pytorch_lightning' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_ctrl_c_while_a_command_is_imported_is_no_traceback():
    code = (
        "import sys, importlib\nfrom dvae.cli import main\n"
        "def stop(name):\n    raise KeyboardInterrupt\n"
        "importlib.import_module = stop\nsys.exit(main(['fit']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 130
    assert result.stderr == "dvae: stopped by SIGINT\n"


def test_it_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "dvae", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("dvae ")


def test_a_reader_that_goes_away_is_no_traceback():
    """As in ``dvae estimators | head -1``."""
    process = subprocess.Popen([sys.executable, "-m", "dvae", "estimators"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_a_warning_of_the_package_is_a_sentence_and_others_stay_as_they_are():
    import os
    import warnings

    from dvae.cli.arguments import quiet_lightning

    before = warnings.formatwarning
    try:
        with warnings.catch_warnings():
            quiet_lightning()
        own = os.path.join("somewhere", "dvae", "training", "module.py")
        assert warnings.formatwarning("grey levels", UserWarning, own, 3) == "dvae: warning: grey levels\n"
        assert warnings.formatwarning("old", DeprecationWarning, "their.py", 3) == before("old", DeprecationWarning, "their.py", 3)
    finally:
        warnings.formatwarning = before
