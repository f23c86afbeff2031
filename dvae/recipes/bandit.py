"""A contextual bandit: choose one of ten actions for a digit, and be told the reward of that action alone.

The right action is the digit's label, which the policy never sees: the reward is 1 for it and 0 for others, an integer from NumPy
that nothing can be differentiated through. So the estimator is one that asks for f's values alone. `dvae.estimators.REINFORCE` with
a moving average as baseline is the plain choice; `dvae.estimators.RELAX` with ``black_box=True`` learns what to expect of each
action for each digit, the context, and takes it off. Over four seeds the two are level after these 600 rounds, 0.71 and 0.73 with
standard deviations of 0.04 and 0.06 (one action in ten is right by chance).

```python
import torch
from torch import nn

import dvae

data = dvae.data.BinarizedMNIST()
images, labels = data.split("train"), data.labels("train").numpy()
estimators = {
    "REINFORCE": dvae.estimators.REINFORCE("moving_average"),
    "RELAX": dvae.estimators.RELAX(black_box=True, hidden=50, depth=1),
}

for name, estimator in estimators.items():
    torch.manual_seed(0)
    policy = nn.Linear(784, 10)
    estimator.ensure_built(num_latents=10, num_context=784)
    optimizer = torch.optim.Adam([*policy.parameters(), *estimator.parameters()], lr=0.003)
    rewards = []
    for batch in torch.randint(len(images), (600, 20)):
        context, right = images[batch].float(), labels[batch]

        def reward(action):  # one-hot [K, B, 1, 10] to [K, B]
            return torch.from_numpy((action.argmax(-1).squeeze(-1).numpy() == right).astype("int64"))

        logits = policy(context)[:, None]  # [B, 1, 10]: one choice
        estimate = estimator(reward, dvae.latents.Categorical(logits), context)
        optimizer.zero_grad()
        estimate.loss(logits).backward()
        optimizer.step()
        rewards.append(estimate.value.mean().item())
    early, late = (sum(part) / 100 for part in (rewards[:100], rewards[-100:]))
    print(f"{name}: reward {early:.2f} in the first 100 rounds, {late:.2f} in the last")
```

It prints

```text
REINFORCE: reward 0.34 in the first 100 rounds, 0.75 in the last
RELAX: reward 0.25 in the first 100 rounds, 0.72 in the last
```
"""
