"""One page that shows runs, in a file that opens anywhere.

The one idea: a page computes nothing of its own. `dvae report RUN...` reads the curves, settings and checkpoints in runs' folders,
asks the functions behind the other commands for the rest, and puts it all into one HTML file:

```bash
dvae report runs/l1_rebar --quick --without variance,retrieval --out report.html
```

![The head of a page: a table of models with error bars, and curves with bands](../../../.github/report.png)

| part | what | from |
|---|---|---|
| `figures` | tables of all models and of their means over seeds, with standard errors | `dvae evaluate` |
| `curves` | what was logged, by updates and by time, with bands of replicas | `metrics.csv` |
| `samples`, `reconstructions` | pictures of the first model of each run | `dvae sample` |
| `bits` | the entropy of every latent, with bands of replicas | `dvae.lab.codes.entropies` |
| `traversal` | the latents that change images most, and walks between codes | `dvae traverse` |
| `retrieval` | neighbours by code, and figures where there are labels | `dvae retrieve` |
| `variance` | estimators side by side at each run's model | `dvae variance` |
| `configuration` | in what runs differ; the command and all settings of each | `config.yaml` |

Several runs are side by side, in one colour each; a column's name sorts its table. A folder that `dvae compare` made is a table of
its estimators, with the figures that it measured. What a run cannot have, such as a prior's samples of a quantised autoencoder, has
a line in its place that says why; `--without` leaves parts out. `--quick` takes 500 examples, 10 samples of the bound and fewer
draws; the error bars are those of what was measured, and the page says on how much.

The file loads nothing: Plotly's library, of the extra `report` (`pip install 'discrete-vae[report]'`), is in it and takes 4.8 MB of
its 5 MB, pictures the rest. The page follows the reader's choice of light or dark, fits a telephone and prints. Names out of users'
files are text, and the browser is told to run no script but the page's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dvae.data import data_module
from dvae.data.arrays import SPLITS
from dvae.data.source import is_loader
from dvae.errors import InputError, did_you_mean
from dvae.estimators import named
from dvae.lab.report.effort import Effort
from dvae.lab.report.parts import PARTS
from dvae.lab.report.runs import Source, open_runs
from dvae.report.page import page, page_file

__all__ = ["PARTS", "report"]

_NAMED = 3  # runs in the title of a page
_WHOLE = Effort(None, 100, 100, 200, 1000, 1000, 100, 0, None)
_QUICK = Effort(500, 10, 20, 50, 100, 200, 10, 0, None)


def report(
    runs: Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    data: Any = None,
    split: str = "test",
    quick: bool = False,
    num_examples: int | None = None,
    num_samples: int | None = None,
    estimators: Sequence[str] | None = None,
    without: Sequence[str] = (),
    seed: int = 0,
    device: Any = None,
    trust: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a page of HTML about runs, which needs no other file and no network; the path of the file.

    What a run cannot have, such as samples of a quantised autoencoder, has a line in its place that says why.

    Arguments:
        runs: folders of runs, of several below one the newest, checkpoints, or comparisons that ``dvae compare`` made.
        out: the ``.html`` file, 5 MB of charts' library and the pictures.
        data: see :func:`dvae.lab.evaluate.evaluate`; by default each checkpoint's own.
        split: of what is evaluated and drawn: "valid" or "test", or "train".
        quick: compute less of everything: 500 examples, 10 samples of the bound, fewer draws; error bars are wider.
        num_examples: of the evaluation, drawn from the split; by default all, or ``quick``'s.
        num_samples: of the importance-weighted bound; by default 100, or ``quick``'s.
        estimators: whose variance is measured, see :func:`dvae.lab.variance.compare_variance`; by default the run's own beside
            REINFORCE, LOO, DisARM, REBAR and RELAX, or what the latents have.
        without: names of parts to leave out, of :data:`PARTS`.
        seed: of all noise.
        device: where to compute; the GPU if there is one.
        trust: import classes from outside ``dvae`` that checkpoints name; it runs their code.
        progress: called with a line about what is being done.

    Raises:
        InputError: an argument is not what was expected, a run cannot be read, or Plotly is not installed
            (``pip install 'discrete-vae[report]'``).
    """
    _check(without, split, num_examples, num_samples)
    for name in estimators or ():
        named(name)
    if data is not None and not is_loader(data):
        data = data_module(data, trust=trust)  # once for all runs
    effort = (_QUICK if quick else _WHOLE)._replace(seed=seed, estimators=estimators)
    effort = effort._replace(num_examples=num_examples or effort.num_examples, num_samples=num_samples or effort.num_samples)
    tell = progress or (lambda line: None)
    with page_file(out) as file:
        opened = open_runs(runs, Source(data, split, device, trust))
        sections = [part.section(name, opened, effort, tell) for name, part in PARTS.items() if name not in without]
        names = [run.label for run in opened]
        title = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} runs"
        made = f"Written by dvae report on {datetime.now():%Y-%m-%d}" + (", in quick mode." if quick else ".")
        about = [made] if len(names) <= _NAMED else [", ".join(names), made]
        file.write_text(page(title, about, sections), encoding="utf-8", newline="\n")
    return Path(out)


def _check(without: Sequence[str], split: str, num_examples: int | None, num_samples: int | None) -> None:
    """What is wrong with the arguments, before anything is computed."""
    for name in without:
        if name not in PARTS:
            raise InputError(f"without must be out of {', '.join(PARTS)}, got {name}{did_you_mean(name, PARTS)}")
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    for argument, value, least in (("num_examples", num_examples, 2), ("num_samples", num_samples, 1)):
        if value is not None and value < least:
            raise InputError(f"{argument} must be at least {least}, got {value}")
