"""Latent distributions, with the relaxations that gradient estimators need.

The one idea: a latent is drawn through explicit noise. `u`, uniform on (0, 1), gives the relaxed sample `z = relaxed(u)`, and the
hard sample is `b = hard(z)`. So a training step is a pure function of its parameters, its batch and its noise, and an estimator can
ask for what else the same noise gives: the sample at a temperature (`soft`), another z with the same b (`Discrete.conditional`),
the derivative along the path (`Discrete.path`).

    >>> q = dvae.latents.Bernoulli(torch.zeros(5, 3))
    >>> u = q.noise(2)  # two samples of each
    >>> z = q.relaxed(u)
    >>> q.hard(z).shape, q.soft(z, temperature=0.5).shape
    (torch.Size([2, 5, 3]), torch.Size([2, 5, 3]))

A model takes a family by its name and asks its `Spec` for sizes: `--model.latent Categorical --model.num_latents 20
--model.num_classes 10` on the command line. A family of one's own is a class derived from `Latent` or `Discrete`, given by its
import path; `Latent.example` is the small problem that it is certified on. A distribution of `torch.distributions` becomes a latent
through `of`, as it does where an estimator is given one.
"""

from dvae.latents.base import Discrete, Latent, Spec
from dvae.latents.bernoulli import Bernoulli
from dvae.latents.categorical import Categorical
from dvae.latents.families import FAMILIES, of
from dvae.latents.gaussian import Gaussian
from dvae.latents.permutation import PlackettLuce, permutation_matrix
from dvae.latents.sorting import NeuralSortPlackettLuce, SinkhornPlackettLuce

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Categorical",
    "Discrete",
    "Gaussian",
    "Latent",
    "NeuralSortPlackettLuce",
    "PlackettLuce",
    "SinkhornPlackettLuce",
    "Spec",
    "of",
    "permutation_matrix",
]
