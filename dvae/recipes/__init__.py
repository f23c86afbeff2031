"""Short programs in which an estimator serves an expectation that is not a VAE's, each whole, to copy, with what it prints.

The one idea: an estimator takes any objective f and any distribution q that it supports. `estimator(f, q).loss(logits)` is then a
loss like others: one backward gives the parameters of q, those of f and the estimator's own their gradients, and one optimizer of
`torch.optim` steps them all.

| recipe | q | f | estimator |
|---|---|---|---|
| `dvae.recipes.attention` | which patch of a digit to look at | log-probability of its label, a network's | `LOO` |
| `dvae.recipes.stochastic_units` | a layer of binary units | log-likelihood of a digit's lower half, a network's | `DisARM` |
| `dvae.recipes.bandit` | which action to take | a reward from NumPy, for that action alone | `REINFORCE`, `RELAX` |
| `dvae.recipes.distributions` | three distributions of `torch.distributions` | log-likelihood of a signal | `LOO` |

What they have in common:

- f takes samples with a dimension of its own for the estimator's K, [K, B, ...], and returns [K, B]. A tensor [B, ...] of the batch
  meets them by broadcasting.
- What is trained and what belongs to the batch make f together, as `functools.partial(module, x=x)`. The module's parameters learn
  from the same backward. A closure over them is refused: an estimator holds them fixed where it needs f again.
- An estimator with a network (`NVIL`, `RELAX`) is built with `ensure_built` before the optimizer lists its parameters.
"""
