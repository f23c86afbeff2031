r"""Distributions of the top layer's code, p(b).

The one idea: a prior is a module whose `forward` returns a distribution over b, with `log_prob`, which also takes relaxed b, and
`sample`; a family of `dvae.latents` is such a distribution. The model never asks for a prior's class.

    >>> class Fixed(dvae.priors.Prior):
    ...     def build(self, latent):
    ...         self.latent = latent
    ...     def forward(self):
    ...         return self.latent(torch.zeros(self.latent.num_logits))
    >>> dvae.VAE(num_pixels=6, num_latents=4, prior=Fixed()).sample(2).shape
    torch.Size([2, 6])

| prior | of | the latents depend on each other by | KL |
|---|---|---|---|
| `Factorial` | all | nothing | closed |
| `SpatialFactorial` | codes on a grid | nothing; the same logits at each place | closed |
| `Autoregressive` | bits, classes | a masked network, each on those before it | sampled |
| `SpatialAutoregressive` | bits, classes on a grid | a causal transformer over places | sampled |
| `BoltzmannMachine` | bits, classes | couplings of one half with the other | closed, up to log Z |

# Relaxed codes

REBAR and RELAX differentiate f at a relaxed code, and f has log p(b) in it. It must be continuous there: what jumps where a latent
changes its value is not in a reparameterized gradient, and the estimate is biased. So the autoregressive priors take each latent's
logits from the *relaxed* latents before it, and the machine its energy at the relaxed code. The certificate of the whole step
(`dvae.lab.certify.certify_model`) passes them, and rejects the same priors with the hard code in its place
(`tests/lab/test_certify_priors.py`).

# Other graphs

`BoltzmannMachine` couples one half of a code with the other. D-Wave's `GraphRestrictedBoltzmannMachine` (dwave-pytorch-plugin
0.4.0) has any graph, and an energy that is as linear in each latent, but it is no prior: it knows no log Z, so that there is no
log p(b) and no ELBO; its sampler, right in distribution, changes its state in place and draws from a generator of its own, so
that a step is no function of noise that could be compiled, repeated for replicas or resumed exactly; and to be imported it
wants D-Wave's cloud client. What would be taken from it is the energy, a line; a prior of other graphs needs the annealing and
the chains of `BoltzmannMachine` over the colours of its graph in place of its two halves.

# Jointly, or afterwards

Trained jointly, the prior is a part of theta: `--config autoregressive`, `--config boltzmann` or `--model.prior CLASS`. Afterwards,
`dvae fit-prior` fits one to the codes of a trained model, whose encoder and decoder stay as they are, and writes a checkpoint of
its own, which all commands take; in Python it is `dvae.training.afterwards.fit_prior`.

```bash
dvae fit --config l1 --config rebar --config autoregressive --trainer.max_steps 20
dvae fit --config l1 --config rebar --trainer.max_steps 20
dvae fit-prior runs/l1_rebar --prior autoregressive --max_steps 20
dvae evaluate runs/l1_rebar_then_autoregressive --num_samples 5
dvae sample runs/l1_rebar_then_autoregressive
```

The linear model L1 after 20,000 compiled steps of REBAR on the bundled MNIST (`--config l1 --config rebar --trainer.max_steps 20000
--model.direct_gradient true`), and priors fitted to its codes (`--max_steps 10000`): `dvae evaluate --num_samples 20` on the 10,000
test images, in nats.

| prior | when | ELBO | reconstruction | KL | bound, 20 samples |
|---|---|---|---|---|---|
| `Factorial` | jointly | -128.35 ± .28 | -90.04 ± .22 | 38.31 ± .08 | -118.68 ± .26 |
| `Factorial` | afterwards | -128.35 ± .28 | -90.04 ± .22 | 38.31 ± .08 | -118.68 ± .26 |
| `BoltzmannMachine` | afterwards | -121.95 ± .27 | -90.04 ± .22 | 31.91 ± .06 | -112.67 ± .25 |
| `Autoregressive` | afterwards | -115.21 ± .27 | -90.04 ± .22 | 25.17 ± .06 | -106.45 ± .26 |
| `BoltzmannMachine` | jointly | -109.96 ± .25 | -76.92 ± .21 | 33.04 ± .06 | -104.58 ± .24 |
| `Autoregressive` | jointly | -102.18 ± .27 | -73.14 ± .20 | 29.05 ± .07 | -97.65 ± .25 |

The codes are the same, and the ELBO differs by the KL: refitted, the factorial prior stays where it was, for it is the mean of the
codes already, and 13 nats of its KL are what the bits of a code know of each other.

Jointly a prior gains more than as much again, for the codes become such as it likes: `--config autoregressive` and `--config
boltzmann` after as many steps (without `direct_gradient`) are 26 and 18 nats above the factorial prior, most of it in the
reconstruction, for a code that the prior knows can say more at the same price.

![Samples of models trained with their prior: left autoregressive, right a Boltzmann machine](../../.github/priors_jointly.png)

![Samples of one decoder with three priors: factorial, restricted Boltzmann machine, autoregressive](../../.github/priors.png)

# log Z

A `BoltzmannMachine` is known up to its constant Z. Validation and `dvae evaluate` measure it, by annealed importance sampling or,
where one half of the code has at most 4,096 states, by a sum; `dvae evaluate` prints it with its standard error, which the ELBO
and the bound share. An annealed log Z is too small rather than too large, and the ELBO then too large, by about half the square of
that error. The encoder's gradient needs no Z, and the machine's own comes from persistent chains, which are in the checkpoint; so
Z is not in what `train/elbo` logs, which is no bound: `val/elbo` is.
"""

from dvae.priors.autoregressive import Autoregressive
from dvae.priors.base import Prior
from dvae.priors.boltzmann import BoltzmannMachine
from dvae.priors.factorial import Factorial, SpatialFactorial
from dvae.priors.spatial import SpatialAutoregressive

__all__ = ["Autoregressive", "BoltzmannMachine", "Factorial", "Prior", "SpatialAutoregressive", "SpatialFactorial"]
