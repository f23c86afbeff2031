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

| family | a sample | models |
|---|---|---|
| `Bernoulli` | bits, [*, B, D] | `--model.latent Bernoulli`, the default |
| `Categorical` | one-hot vectors, [*, B, D, C] | `--model.latent Categorical --model.num_classes 10` |
| `Gaussian` | real numbers, [*, B, D] | `--model.latent Gaussian` |
| `PlackettLuce` | the order of n items, as ranks, [*, B, n] | `--model.latent PlackettLuce --model.num_latents 20` |

A model takes a family by its name and asks its `Spec` for sizes: `--model.latent Categorical --model.num_latents 20
--model.num_classes 10` on the command line. A family of one's own is a class derived from `Latent` or `Discrete`, given by its
import path; `Latent.example` is the small problem that it is certified on. A distribution of `torch.distributions` becomes a latent
through `of`, as it does where an estimator is given one.

# Orders

`PlackettLuce` draws n items one after the other; an objective gets their ranks, and `permutation_matrix` makes of ranks, hard or
soft, the matrix that puts items into their places. Probabilities, scores, conditional samples and coupled paths take memory of
n log n; soft ranks take n^2. How an order is relaxed is the family's choice: `PlackettLuce` compares pairs,
`NeuralSortPlackettLuce` and `SinkhornPlackettLuce` take the expected places under NeuralSort's matrix, and under one that is doubly
stochastic. The distribution is one, and REBAR and RELAX are certified with each.

Here the gradient of an objective that is largest where three items are sorted:

    >>> items = torch.tensor([3.0, 1.0, 2.0])
    >>> def f(b):
    ...     placed = dvae.latents.permutation_matrix(b) @ items
    ...     return -(placed - torch.tensor([1.0, 2.0, 3.0])).square().sum(-1)
    >>> q = dvae.latents.PlackettLuce(torch.zeros(1, 3))
    >>> estimate = dvae.estimators.REBAR(num_samples=10_000)(f, q)
    >>> estimate.grad.argsort(descending=True)  # the item that is 1 is to come first, then 2, then 3
    tensor([[1, 2, 0]])

What can be learned with them, `dvae toy --problem permutation` and `dvae jigsaw` show, with figures in `dvae.lab`.

# Codes

What `dvae.VAE.codes` gives is one number a variable, and `dvae.VAE.decode_codes` takes it back. `pack_bits` and `unpack_bits`,
`to_integers` and `from_integers`, `one_hot` and `from_one_hot` are other forms of it, each without loss:

    >>> codes = torch.tensor([[1, 0, 1, 1]])
    >>> dvae.latents.pack_bits(codes), dvae.latents.to_integers(codes, num_values=2, group=2)
    (tensor([[176]], dtype=torch.uint8), tensor([[2, 3]]))
"""

from dvae.latents.base import Discrete, Latent, Spec
from dvae.latents.bernoulli import Bernoulli
from dvae.latents.categorical import Categorical
from dvae.latents.families import FAMILIES, of
from dvae.latents.gaussian import Gaussian
from dvae.latents.packing import from_integers, from_one_hot, one_hot, pack_bits, to_integers, unpack_bits
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
    "from_integers",
    "from_one_hot",
    "of",
    "one_hot",
    "pack_bits",
    "permutation_matrix",
    "to_integers",
    "unpack_bits",
]
