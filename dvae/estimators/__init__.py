r"""Gradient estimators, one file per family.

The one idea: an estimator answers a single question, *what is the gradient of* :math:`E_q[f(b)]` *with respect to the logits of q?*
It is a function of an objective and a distribution, and needs no autoencoder:

```python
# a distribution, an objective, and an estimate
import torch

import dvae

logits = torch.zeros(5, 200, requires_grad=True)
estimator = dvae.estimators.DisARM()
estimate = estimator(lambda b: -(b - 0.3).square().sum(-1), dvae.latents.Bernoulli(logits))
estimate.loss(logits).backward()
print(estimate.value.shape, estimate.grad.shape, logits.grad.shape)
```

`GradientEstimator` holds the contract, and a subclass writes one equation, `GradientEstimator.gradient`. The base class detaches
the logits, draws the relaxed and the hard sample, evaluates f once with the graph to theta, and hands the subclass a *frozen* f for
everything else: nothing of theta can leak into the gradient, and nothing of phi, the estimator's own parameters, into the value.
One backward then serves all, whichever the estimator:

.. math:: \text{loss} = \frac1B \sum_{i=1}^B \big(-f(b_i) - g_i \cdot \text{logits}_i + |g_i|^2\big)

with g detached in the second term, over the B examples of a batch. Theta sees the first two terms, phi the last: E[g] does not
depend on phi, so the gradient of the squared norm is that of the variance.

.. include:: ../../README.md
   :start-after: ## Estimators
   :end-before: (`dvae estimators

All work with one or several stochastic layers. `VIMCO` and `MultiSampleDisARM` are for the K-sample bound, which is then what theta
is trained on too. REBAR and RELAX couple the noise of z and z~, as their papers do, which makes the two equal in value; then one
evaluation and one derivative of c serve for both terms (`dvae.latents.Discrete.path`), exactly; `coupled=False` draws them
independently. `dvae.lab.certify` measures whether an estimator is what it says.

**Any f.** Where f' is not needed, f may be any Python function. Here it is an integer from NumPy, the size of a graph's cut, and
RELAX's control variate is the network alone:

```python
# maximum cut
import numpy as np
import torch

import dvae

edges = np.array([(i, j) for i in range(14) for j in range(i) if (3 * i + j * j) % 5 < 2])


def cut(b):
    side = b.numpy() > 0.5
    return torch.from_numpy((side[..., edges[:, 0]] != side[..., edges[:, 1]]).sum(-1))


torch.manual_seed(0)
estimator = dvae.estimators.RELAX(black_box=True, hidden=32)
estimator.ensure_built(num_latents=14, num_context=0)
logits = torch.zeros(1, 14, requires_grad=True)
optimizer = torch.optim.Adam([logits, *estimator.parameters()], lr=0.03)
for _ in range(1000):
    optimizer.zero_grad()
    estimator(cut, dvae.latents.Bernoulli(logits)).loss(logits).backward()
    optimizer.step()

best = cut(dvae.latents.Bernoulli(logits[0]).enumerate()).max()
print(f"cut {cut((logits > 0).float().detach()).item()} of {best.item()} at best")
```
"""

from dvae.estimators.antithetic import ARM, ARMS, U2G, DisARM
from dvae.estimators.base import Draw, Estimate, GradientEstimator
from dvae.estimators.catalogue import CATALOGUE, Facts, Named, facts, named
from dvae.estimators.concrete import Concrete
from dvae.estimators.exact import Exact
from dvae.estimators.multi_sample import VIMCO, MultiSampleDisARM
from dvae.estimators.reinforce import LOO, NVIL, REINFORCE
from dvae.estimators.relax import REBAR, RELAX
from dvae.estimators.reparameterization import LAX, Reparameterization
from dvae.estimators.stein import RODEO
from dvae.estimators.straight_through import GumbelStraightThrough, ReinMax, StraightThrough
from dvae.estimators.taylor import DoubleCV, MuProp

__all__ = [
    "ARM",
    "ARMS",
    "CATALOGUE",
    "LAX",
    "LOO",
    "NVIL",
    "REBAR",
    "REINFORCE",
    "RELAX",
    "RODEO",
    "U2G",
    "VIMCO",
    "Concrete",
    "DisARM",
    "DoubleCV",
    "Draw",
    "Estimate",
    "Exact",
    "Facts",
    "GradientEstimator",
    "GumbelStraightThrough",
    "MuProp",
    "MultiSampleDisARM",
    "Named",
    "ReinMax",
    "Reparameterization",
    "StraightThrough",
    "facts",
    "named",
]
