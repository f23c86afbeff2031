"""Hard attention: choose one patch of a digit to look at, and say which digit it is.

The mean ink of each of 4 x 4 patches is a glance at the digit, from which a network, the gaze, chooses the patch that is then seen
with all its 7 x 7 pixels. The choice is a `dvae.latents.Categorical`. Its reward f is the classifier's log p(label given glance,
place and patch), and the classifier learns from the same backward. `dvae.estimators.LOO` needs f's values alone. The derivative
that `dvae.estimators.REBAR` asks for is there, but at a relaxed choice it is about a mixture of patches, which is never seen.
The entropy keeps the gaze from settling on one patch for all digits before the classifier knows the others.

```python
from functools import partial

import torch
from torch import nn

import dvae


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16 + 16 + 49, 100), nn.ReLU(), nn.Linear(100, 10))

    def forward(self, where, patches, label):  # log p(label), [K, B], from one-hot [K, B, 1, 16]
        seen = torch.cat([where, patches.mean(-1)[:, None].expand_as(where), where @ patches], -1)
        return self.layers(seen).log_softmax(-1).squeeze(-2)[..., torch.arange(len(label)), label]


def cut(images):
    return images.float().view(-1, 4, 7, 4, 7).transpose(2, 3).reshape(-1, 16, 49)


torch.manual_seed(0)
data, estimator = dvae.data.BinarizedMNIST(), dvae.estimators.LOO(num_samples=4)
gaze, classifier = nn.Sequential(nn.Linear(16, 50), nn.ReLU(), nn.Linear(50, 16)), Classifier()
optimizer = torch.optim.Adam([*gaze.parameters(), *classifier.parameters()], lr=0.005)
for batch in torch.randint(50_000, (600, 50)):
    patches, label = cut(data.split("train")[batch]), data.labels("train")[batch]
    q = dvae.latents.Categorical(gaze(patches.mean(-1))[:, None])  # [B, 1, 16]: one choice
    estimate = estimator(partial(classifier, patches=patches, label=label), q)
    optimizer.zero_grad()
    (estimate.loss(q.logits) - 0.2 * q.entropy().mean()).backward()
    optimizer.step()

f = partial(classifier, patches=cut(data.split("test")), label=data.labels("test"))
gazed = dvae.latents.Categorical(gaze(f.keywords["patches"].mean(-1))[:, None]).mode()
by_chance = f(dvae.latents.Categorical(torch.zeros(gazed.shape)).sample()).mean()
print(f"nats: {f(gazed).mean():.2f} where it looks, {by_chance:.2f} at a patch drawn at random")
print(f"patches looked at: {(gazed.mean((0, 1)) > 0.01).sum()} of 16")
```

It prints

```text
nats: -0.68 where it looks, -0.82 at a patch drawn at random
patches looked at: 5 of 16
```

where both are of this classifier, which was trained on what the gaze showed it.
"""
