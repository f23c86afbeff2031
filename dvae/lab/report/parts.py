"""The parts of a page about runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dvae.lab.report.codes import bits, retrieval
from dvae.lab.report.configuration import configuration
from dvae.lab.report.curves import curves
from dvae.lab.report.effort import Effort, Progress
from dvae.lab.report.figures import figures
from dvae.lab.report.pictures import reconstructions, samples, traversal
from dvae.lab.report.runs import Run
from dvae.lab.report.variance import variance
from dvae.report.page import Block, Section

__all__ = ["PARTS", "Part"]

Make = Callable[[Sequence[Run], Effort, Progress], list[Block]]


class Part(NamedTuple):
    """A part of a page: its title, a line about it, and what makes it."""

    title: str
    about: str
    make: Make

    def section(self, name: str, runs: Sequence[Run], effort: Effort, progress: Progress) -> Section:
        """The part as it stands in a page."""
        return Section(name, self.title, self.about, self.make(runs, effort, progress))


PARTS: dict[str, Part] = {
    "figures": Part("Figures", "What the models are worth on examples that they were not trained on.", figures),
    "curves": Part("Curves", "Along training. The band around a line is a standard deviation between replicas.", curves),
    "samples": Part("Samples", "E[x | b] of codes b that the prior draws: the means of pixels.", samples),
    "reconstructions": Part("Reconstructions", "Examples, and below each what its code gives back.", reconstructions),
    "bits": Part("Use of the code", "How much information each latent has over the examples; a bit has at most 1.", bits),
    "traversal": Part(
        "Traversal", "What single latents do, those first that change images most, and walks between codes.", traversal
    ),
    "retrieval": Part("Retrieval", "The nearest training examples by the number of bits in which codes differ.", retrieval),
    "variance": Part("Variance of the gradient", "Estimators side by side, at each run's model as it is.", variance),
    "configuration": Part("Configuration", "How each run was made.", configuration),
}
"""The parts of a page by name, in their order."""
