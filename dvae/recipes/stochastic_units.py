"""Stochastic binary units: predict the lower half of a digit from the upper one, through a layer of 50 bits.

What is below is not a function of what is above, and a layer of `dvae.latents.Bernoulli` units can answer with several lower halves
where a deterministic one would average them. Trained is E[log p(lower | b)] over the units b given the upper half, which bounds
log p(lower | upper); `dvae.estimators.DisARM` estimates its gradient from two antithetic samples. The mean over 100 samples of
p(lower | b), within the logarithm, is a tighter bound. This is the task of Raiko, Berglund, Alain & Dinh, *Techniques for learning
binary stochastic feedforward neural networks*, 2015 (https://arxiv.org/abs/1406.2989), with one layer of units.

```python
import math
from functools import partial

import torch
from torch import nn
from torch.distributions import Bernoulli

import dvae


class Lower(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.layer = nn.Linear(50, 392)
        self.layer.bias.data = mean.clamp(0.001, 0.999).logit()

    def forward(self, b, lower):  # log p(lower | b), [K, B], from [K, B, 50] and [B, 392]
        return Bernoulli(logits=self.layer(2 * b - 1)).log_prob(lower).sum(-1)


torch.manual_seed(0)
data, estimator = dvae.data.BinarizedMNIST(), dvae.estimators.DisARM()
units, lower_half = nn.Linear(392, 50), Lower(data.mean[392:])
optimizer = torch.optim.Adam([*units.parameters(), *lower_half.parameters()], lr=0.005)
for batch in torch.randint(50_000, (500, 50)):
    upper, lower = data.split("train")[batch].float().split(392, dim=-1)
    q = dvae.latents.Bernoulli(units(upper))
    optimizer.zero_grad()
    estimator(partial(lower_half, lower=lower), q).loss(q.logits).backward()
    optimizer.step()

upper, lower = data.split("test")[:1000].float().split(392, dim=-1)
with torch.no_grad():
    log_p = lower_half(dvae.latents.Bernoulli(units(upper)).sample(100), lower)
independent = Bernoulli(data.mean[392:].clamp(0.001, 0.999)).log_prob(lower).sum(-1).mean()
bound = (log_p.logsumexp(0) - math.log(100)).mean()
print(f"nats: 1 sample {log_p.mean():.1f}, 100 samples {bound:.1f}, every pixel by itself {independent:.1f}")
```

It prints

```text
nats: 1 sample -88.7, 100 samples -79.9, every pixel by itself -104.6
```
"""
