"""Distributions of PyTorch: q is made with `torch.distributions`, and the loop is an ordinary one.

A signal is a sum of atoms, and noise: which atoms are in it, one of each group, or how much of each. Its posterior q is
`Bernoulli`, `OneHotCategorical` or `Normal` of `torch.distributions`, in `Independent` here and as well without. The loss adds the
estimator's, of the log-likelihood, and PyTorch's own `kl_divergence`, which needs no estimate: together the negative ELBO.
`dvae.latents.of` says which latent q is, and its `logits` are the parameters that the estimate is about, with their graph.

```python
import torch
from torch.distributions import Bernoulli, Independent, Normal, OneHotCategorical, kl_divergence

import dvae

families = {  # parameters to q, and the shape of one example's parameters
    "Bernoulli": (lambda p: Bernoulli(logits=p), (12,)),
    "OneHotCategorical": (lambda p: OneHotCategorical(logits=p), (3, 4)),
    "Normal": (lambda p: Normal(p[..., 0], p[..., 1].exp()), (12, 2)),
}

for name, (family, shape) in families.items():
    torch.manual_seed(0)
    prior = Independent(family(torch.zeros(100, *shape)), 1)
    truth, atoms = prior.sample(), torch.randn(12, 40)
    signal = truth.reshape(100, 12) @ atoms + torch.randn(100, 40)

    def log_likelihood(b):  # [K, 100, 12], or [K, 100, 3, 4] of categorical variables, to [K, 100]
        return -(b.reshape(-1, 100, 12) @ atoms - signal).square().sum(-1) / 2

    parameters = torch.zeros(100, *shape, requires_grad=True)
    estimator = dvae.estimators.LOO(num_samples=4)
    optimizer = torch.optim.Adam([parameters], lr=0.05)
    for _ in range(400):
        q = Independent(family(parameters), 1)
        estimate = estimator(log_likelihood, q)
        optimizer.zero_grad()
        (estimate.loss(dvae.latents.of(q).logits) + kl_divergence(q, prior).mean()).backward()
        optimizer.step()

    before, after = ((p.mean - truth).square().mean().sqrt() for p in (prior, q))
    print(f"{name}: distance from the truth {before:.2f} of the prior's mean, {after:.2f} of the posterior's")
```

It prints

```text
Bernoulli: distance from the truth 0.50 of the prior's mean, 0.05 of the posterior's
OneHotCategorical: distance from the truth 0.43 of the prior's mean, 0.01 of the posterior's
Normal: distance from the truth 1.02 of the prior's mean, 0.19 of the posterior's
```
"""
