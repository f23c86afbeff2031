"""The house stands: arrows between the package's files go down, in no circle, and Lightning stays where it belongs."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import dvae

PACKAGE = Path(dvae.__file__).parent

# A file may import from its own room and from the floors below. `report` draws what it is handed, so it stands where training's
# callbacks can reach it. The names that `dvae` itself gives are for those who use it, and for the command.
GROUND = ("errors", "files", "resources", "config", "noise", "objectives", "metrics", "functional")
FLOORS = (
    GROUND,
    ("latents",),
    ("networks",),
    ("likelihoods", "priors"),
    ("estimators",),
    ("models", "data"),
    ("report",),
    ("training",),
    ("rl",),
    ("lab",),
    ("__init__",),
    ("cli", "testing", "recipes"),
    ("__main__",),
)
DATA_STANDS_ON = {"config", "errors", "noise", "files", "resources"}
WITHOUT_LIGHTNING = {*GROUND, "latents", "networks", "likelihoods", "priors", "estimators", "models"}
LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning")

# All that is used of Lightning's private parts.
PRIVATE = {
    "_accelerator_connector",
    "_batches_that_stepped",
    "_data_fetcher",
    "_ddp_params_and_buffers_to_ignore",
    "_every_n_train_steps",
    "_iterator",
    "_logger_connector",
    "_on_before_batch_transfer",
    "_should_check_val_fx",
    "_start_method",
    "_trainer",
}

# Of the standard library on Unix and not on Windows.
UNIX_ALONE = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios")

Graph = dict[str, set[str]]


# The graph of a package's files


def modules_of(folder: Path) -> dict[str, Path]:
    """A package's modules by dotted name; a package is called by its ``__init__``."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        found[".".join((folder.name, *path.relative_to(folder).with_suffix("").parts))] = path
    return found


def imported(path: Path) -> Iterator[tuple[str, str | None]]:
    """What a file imports when it runs, as (module, name); what is for a type checker alone is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node) for branch in ast.walk(tree) if _is_for_types(branch) for part in branch.body for node in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def arrows(folder: Path) -> Graph:
    """For each module of a package, those of the package that it imports."""
    modules, graph = modules_of(folder), {}
    for name, path in modules.items():
        graph[name] = set()
        for module, attribute in imported(path):
            assert not module.startswith("."), f"{path}: import by the full name, not relatively"
            for target in (f"{module}.{attribute}", f"{module}.{attribute}.__init__", module, f"{module}.__init__"):
                if target in modules:
                    graph[name].add(target)
                    break
    return graph


def room(module: str) -> str:
    """The folder below the package, or the file in it."""
    return module.split(".")[1]


def folder_of(module: str) -> str:
    """The innermost folder of a module; a file of the package itself stands for its own."""
    parts = module.split(".")
    return ".".join(parts[1:-1]) or parts[1]


def upward(graph: Mapping[str, set[str]], floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """The arrows that do not go down."""
    level = {name: number for number, names in enumerate(floors) for name in names}
    found = []
    for source, targets in graph.items():
        for target in sorted(targets):
            here, there = level[room(source)], level[room(target)]
            if not (there < here or room(source) == room(target) or here == there == 0):
                found.append(f"{source} imports {target}")
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, and nodes that point at themselves."""
    reached = {node: _reached(graph, node) for node in graph}
    found = {tuple(sorted(other for other in reached[node] if node in reached[other])) for node in graph if node in reached[node]}
    return [list(circle) for circle in sorted(found)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached, waiting = set(), [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return reached


def between_folders(graph: Mapping[str, set[str]]) -> Graph:
    """The arrows from folder to folder."""
    folders: Graph = {}
    for source, targets in graph.items():
        here = folders.setdefault(folder_of(source), set())
        here |= {folder_of(target) for target in targets} - {folder_of(source)}
    return folders


# Lightning


def lightning_privates() -> set[str]:
    """Names with one underscore that Lightning's own classes define."""
    found: set[str] = set()
    for package in ("pytorch_lightning", "lightning_fabric"):
        origin = importlib.util.find_spec(package).origin
        for path in Path(origin).parent.rglob("*.py"):
            found |= set(re.findall(r"(?:\bself\.|\bdef |^    )(_[a-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def private_uses(path: Path, privates: set[str]) -> set[str]:
    """Those of the names that a file reads or sets on objects, and does not define itself."""
    used, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            is_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            (own if is_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            used |= {argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)}
    return (used & privates) - own


# The house


@pytest.fixture(scope="module")
def graph() -> Graph:
    return arrows(PACKAGE)


def test_every_room_has_a_floor(graph):
    rooms = {room(module) for module in graph}
    assert rooms <= {name for floor in FLOORS for name in floor}
    assert len(rooms) > 15


def test_arrows_between_floors_go_down(graph):
    inside = {source: targets for source, targets in graph.items() if source != "dvae.__init__"}
    assert upward(inside, FLOORS) == []


def test_the_package_itself_imports_nothing_before_it_is_asked_for(graph):
    assert graph["dvae.__init__"] == set()


def test_files_import_each_other_in_no_circle(graph):
    assert circles(graph) == []


def test_folders_import_each_other_in_no_circle(graph):
    assert circles(between_folders(graph)) == []


def test_data_stands_on_the_ground_alone(graph):
    below = {room(target) for source, targets in graph.items() if room(source) == "data" for target in targets}
    assert below - {"data"} <= DATA_STANDS_ON


def test_mathematics_does_not_import_lightning():
    for module, path in modules_of(PACKAGE).items():
        if room(module) in WITHOUT_LIGHTNING:
            assert not [name for name, _ in imported(path) if name.split(".")[0] in LIGHTNING], module


def test_one_file_knows_lightnings_private_parts():
    privates = lightning_privates()
    assert privates >= PRIVATE
    used = {module: private_uses(path, privates) for module, path in modules_of(PACKAGE).items()}
    assert {module: names for module, names in used.items() if names} == {"dvae.training.lightning": PRIVATE}


def test_importing_the_package_imports_neither_torch_nor_lightning():
    code = "import sys, dvae; print(sorted({'torch', 'numpy', 'pytorch_lightning', 'lightning_fabric'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_mathematics_runs_without_lightning():
    code = "import sys, dvae.models; print([name for name in sys.modules if name in ('pytorch_lightning', 'lightning_fabric')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_module_is_imported_where_unix_is_not():
    names = [name.removesuffix(".__init__") for name in modules_of(PACKAGE) if not name.endswith("__main__")]
    code = (
        f"import sys, importlib; sys.modules |= dict.fromkeys({UNIX_ALONE}); [importlib.import_module(name) for name in {names}]; "
        "from dvae.lab.benchmark.subject import _peak; import torch; sys.platform = 'win32'; print(_peak(torch.device('cpu')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "nan"


# A house that does not stand


@pytest.fixture
def crooked(tmp_path) -> Path:
    """A package with an arrow that goes up, a circle of files, one of folders, and arrows that do not count."""
    files = {
        "__init__.py": "",
        "errors.py": "",
        "low/__init__.py": "from house.low.a import A",
        "low/a.py": "from house.errors import E\n\ndef late():\n    import house.high.top",
        "low/b.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from house.high.top import Top",
        "middle/__init__.py": "",
        "middle/x.py": "from house.middle import y",
        "middle/y.py": "def late():\n    from house.middle.x import X",
        "high/__init__.py": "",
        "high/top.py": "from house.low import A\nfrom house.middle import x",
        "touches.py": "def f(trainer):\n    trainer.loop._secret += 1\n    return trainer._other, getattr(trainer, '_hidden', 0)",
        "owns.py": "class C:\n    def f(self):\n        self._secret = 1\n        return self._secret",
    }
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "house"


CROOKED_FLOORS = (("errors", "touches", "owns"), ("low",), ("middle",), ("high",), ("__init__",))


def test_an_arrow_that_goes_up_is_reported(crooked):
    assert upward(arrows(crooked), CROOKED_FLOORS) == ["house.low.a imports house.high.top"]


def test_rooms_of_one_floor_must_not_import_each_other(crooked):
    level = (("errors", "touches", "owns"), ("low",), ("middle", "high"), ("__init__",))
    assert upward(arrows(crooked), level) == ["house.high.top imports house.middle.x", "house.low.a imports house.high.top"]


def test_circles_of_files_are_reported(crooked):
    assert circles(arrows(crooked)) == [
        ["house.high.top", "house.low.__init__", "house.low.a"],
        ["house.middle.x", "house.middle.y"],
    ]


def test_circles_of_folders_are_reported(crooked):
    assert circles(between_folders(arrows(crooked))) == [["high", "low"]]


def test_private_parts_that_are_not_a_files_own_are_reported(crooked):
    privates = {"_secret", "_hidden"}
    assert private_uses(crooked / "touches.py", privates) == {"_secret", "_hidden"}
    assert private_uses(crooked / "owns.py", privates) == set()
