"""Print the oldest version of every dependency that pyproject.toml allows, as pip's requirements."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
requirements = dict(re.findall(r'"([A-Za-z][A-Za-z0-9_.-]*(?:\[\w+\])?)>=([0-9.]+)"', text))
if not requirements:
    sys.exit("pyproject.toml lists no requirements of the form name>=version")
for name, version in requirements.items():
    if name not in ("ruff", "mypy"):  # they check the code, they do not run it
        print(f"{name}=={version}")
