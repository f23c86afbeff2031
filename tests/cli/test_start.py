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
    result = subprocess.run([sys.executable, "-m", "dvae.cli", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("dvae ")
