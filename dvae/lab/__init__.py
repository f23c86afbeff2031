"""Instruments: what to do with an estimator or a trained model besides training it.

The one idea: every figure has a command behind it. `dvae.lab.certify` measures bias, `dvae.lab.evaluate` the bounds of a
checkpoint, `dvae.lab.variance` the gradient's variance at a trained model, `dvae.lab.toy` the paper's toy problem
and that of orders, `dvae.lab.jigsaw` puts tiles together, `dvae.lab.benchmark` measures time, `dvae.lab.codes` writes
codes, `dvae.lab.decoding` and `dvae.lab.traverse` make images of them, `dvae.lab.retrieval` and `dvae.lab.search` search by
them, and `dvae.lab.report` puts what all of them find about runs on one page.

```bash
dvae toy --targets '[0.499]' --num_seeds 3 --num_iterations 500
dvae variance runs/l1_rebar --estimators '[LOO, DisARM, REBAR]' --num_draws 20 --phi_steps 20 --plot variance.png
```

# The toy problem

`dvae toy` without arguments is the paper's: 10,000 iterations, 10 seeds at once, t = .45 and .499.

![Expected loss and log-variance of the toy](../../.github/toy.png)

| t | estimator | expected loss | least possible | log-variance of the gradient |
|---|---|---|---|---|
| .45 | REINFORCE | 0.203047 ± 0.000049 | 0.2025 | -14.04 |
| | REBAR | 0.203011 ± 0.000046 | | -8.84 |
| | RELAX | 0.202613 ± 0.000032 | | -18.14 |
| .499 | REINFORCE | 0.249824 ± 0.000138 | 0.249001 | -4.44 |
| | REBAR | 0.249850 ± 0.000140 | | -4.43 |
| | RELAX | 0.249075 ± 0.000011 | | -14.02 |

Why: at p = 1/2 the best control variate is level with f, which REBAR's, a warped quadratic, cannot reach and RELAX's network
learns.

![The best control variates at p = 1/2, beside f](../../.github/toy_surrogates.png)

# Orders

`dvae toy --problem permutation` is the toy of Gadetsky et al. 2020: the order of eight items whose matrix is nearest to one that is
nearly uniform; the best order's loss is 6.2229, and the mean over all orders, where the logits start, 7.0229. After its 50,000
updates (`--estimators REINFORCE,LOO,REBAR,RELAX`), mean over 5 seeds:

| estimator | expected loss | log-variance of the gradient | before the first update |
|---|---|---|---|
| REINFORCE | 6.8826 ± 0.0339 | 5.02 | 5.56 |
| LOO, 2 samples | 6.2236 ± 0.0000 | -8.81 | -2.73 |
| REBAR | 6.2238 ± 0.0003 | -7.85 | 4.22 |
| RELAX | 6.2261 ± 0.0008 | -5.04 | 4.31 |

The loss is about 7 whatever the order, and LOO's baseline takes that off from the first update on, where REBAR and RELAX
have to learn it: LOO is at 6.3 after some 5,000 updates, RELAX after 11,000 and REBAR after 14,000.

![Expected loss and log-variance of the toy of orders](../../.github/toy_permutation.png)

`dvae jigsaw` cuts the bundled digits into tiles and shuffles them; a network that sees them in that order gives each a score, the
order is drawn from the scores, and what is trained is the squared error of the image put together (Mena et al. 2018). The order is
never shown. Of 10,000 test images after 2,000 updates of 50:

| estimator | 2 x 2: images | places | 3 x 3: images | places |
|---|---|---|---|---|
| REINFORCE | 94.42% | 96.96% | 0.00% | 19.57% |
| LOO | 95.98% | 97.74% | 0.00% | 32.07% |
| RELAX | 97.39% | 98.55% | 1.41% | 40.14% |

The untrained network has 19.5% of the nine places right, for many tiles are empty. Nine tiles are hard for one score each: LOO
stays near a third of the places from its 600th update on.

![Shuffled tiles, the order that RELAX's network infers, and the digits](../../.github/jigsaw.png)

# What a code says

`dvae decode` makes images of codes that `dvae encode` wrote, or of tokens. `dvae traverse` sorts latents by how much they change
the image (`dvae.lab.traverse`), draws those that change it most, and walks from one image's code to another's, one latent after
the other:

```bash
dvae decode runs/l1_rebar codes.npz --out images.npz
dvae traverse runs/l1_rebar --out pictures --num_examples 10
```

Of 32 bits, in `dvae fit --config nl1 --config loo --model.num_latents 32 --model.kl analytic --trainer.max_steps 4000`, each row
is one bit, 0 and 1 in four codes, and in the last column how much it changes each pixel; below, walks of eight steps:

![Four digits with one bit at 0 and at 1, and where that bit changes images](../../.github/latents.png)
![Digits that become others, a few bits at a time](../../.github/interpolations.png)

No bit has a meaning of its own here: each changes a pixel by about .05, in different places in different images. Two bits share
.02 bits on average.

`dvae retrieve` searches the training set by bits, exactly, and measures what it finds where the data have labels, beside random
hyperplanes (Charikar 2002) and the signs of principal components, of as many bits (`dvae.lab.retrieval`). Of the same 32 bits,
`dvae retrieve runs/nl1 --out pictures`: 1,000 test digits sought among 50,000, in mean and standard error over queries:

| code | precision of 10 | average precision | vote of 10 neighbours | linear probe |
|---|---|---|---|---|
| model | 0.800 ± 0.009 | 0.393 ± 0.006 | 0.852 ± 0.011 | 0.802 ± 0.013 |
| random hyperplanes | 0.537 ± 0.010 | 0.229 ± 0.004 | 0.668 ± 0.015 | 0.591 ± 0.016 |
| signs of principal components | 0.771 ± 0.009 | 0.235 ± 0.003 | 0.857 ± 0.011 | 0.704 ± 0.014 |

![Test digits and the nine training digits whose codes are nearest](../../.github/neighbours.png)

The vote of ten neighbours is as good by principal components; the model's code is ahead where all of a digit's kind are sought.

Twice as many bits and a longer training, ten minutes of one core, `dvae fit --config nl1 --config loo --model.num_latents 64
--trainer.max_steps 15000` and `dvae retrieve runs/nl1_loo --index codes.usearch`:

| 64 bits | precision of 10 | precision of 100 | average precision | vote of 10 neighbours | linear probe |
|---|---|---|---|---|---|
| model | 0.844 ± 0.008 | 0.772 ± 0.008 | 0.337 ± 0.005 | 0.904 ± 0.009 | 0.824 ± 0.012 |
| random hyperplanes | 0.660 ± 0.010 | 0.570 ± 0.009 | 0.274 ± 0.006 | 0.782 ± 0.013 | 0.696 ± 0.015 |
| signs of principal components | 0.782 ± 0.008 | 0.637 ± 0.008 | 0.200 ± 0.003 | 0.883 ± 0.010 | 0.737 ± 0.014 |

The code is the mode of each bit; drawn from q(b | x) instead, precision of 100 is ten points lower, and thresholds at each bit's
median are as good as those at one half.

The search is exact and counts bits in machine words: `dvae benchmark --retrieval 1000000` found the 100 nearest of 1,000,000 codes
146 times a second on one busy core, where the exact search of `usearch` (extra `retrieval`) did so 11 times. `--index FILE` makes
usearch's graph of the training set's codes, a file that its programs in other languages read too, or reads it where it is there,
refuses one of other codes, and measures what share of the nearest it finds and how fast; `dvae.lab.search.Index` is the same in
Python.

# The variance in a real model

`dvae variance runs/l1_relax` on the model of `make train`: natural logarithms of the variance over 1,000 draws (standard errors
under .01), after 2,000 steps on phi at the fixed model; "times f" and "times s" add the logarithm of the evaluations and of the
seconds that a draw takes (one thread).

| estimator | logits | encoder | evaluations of f | encoder, times f | ms | encoder, times s |
|---|---|---|---|---|---|---|
| RELAX | 0.84 | -4.69 | 2 | -3.99 | 2.6 | -10.64 |
| REBAR | 0.98 | -4.56 | 2 | -3.86 | 2.1 | -10.72 |
| ARMS | 1.01 | -4.54 | 4 | -3.15 | 1.9 | -10.80 |
| LOO(num_samples=4) | 1.15 | -4.44 | 4 | -3.05 | 2.0 | -10.67 |
| RODEO | 1.74 | -3.85 | 4 | -2.47 | 3.7 | -9.45 |
| DisARM | 1.90 | -3.66 | 2 | -2.97 | 1.6 | -10.12 |
| DoubleCV | 2.08 | -3.51 | 4 | -2.12 | 2.3 | -9.61 |
| LOO | 2.24 | -3.35 | 2 | -2.65 | 1.4 | -9.90 |
| ARM | 2.34 | -3.23 | 2 | -2.54 | 1.6 | -9.66 |
| NVIL | 3.07 | -2.50 | 1 | -2.50 | 1.3 | -9.17 |
| MuProp | 5.01 | -0.53 | 2 | 0.17 | 1.8 | -6.86 |
| REINFORCE | 7.94 | 2.38 | 1 | 2.38 | 1.1 | -4.45 |

At K = 2 the order is that of the papers: RODEO under DisARM under Double CV under LOO; RELAX under REBAR, far under REINFORCE.

![Log-variance of all estimators](../../.github/variance.png)

# Long training

RELAX and REBAR are level after 20,000 steps (their difference is smaller than the error bars). Later they are not. 300,000 steps of
each, one seed, compiled, on one CPU core (`dvae fit --config
configs/model/l1.yaml --config configs/estimator/relax.yaml --trainer.max_steps 300000`, and `dvae curves`):

![Training ELBO of RELAX, REBAR and LOO against steps and seconds](../../.github/training.png)

| estimator | training ELBO at 300,000 steps | minutes | published, 2,000,000 steps |
|---|---|---|---|
| RELAX | -115.46 | 18.4 | -111.20 |
| REBAR | -116.36 | 11.2 | -111.6 |
| LOO, 2 samples | -117.93 | 9.2 | |

The published ones (Grathwohl et al. 2018) are on the field's fixed binarization. `make compare MODELS="l1 l2 nl1" ESTIMATORS="relax
rebar reinforce" DATA=binarized_mnist_fixed.npz STEPS=2000000` runs the paper's experiment.

# Which control variate

Training ELBO over the last twentieth of runs, three seeds with their standard error: (a) linear maps, 20,000 updates of batch 24 at
rate .001, the paper's; (b) linear maps, 10,000 of batch 50 at rate .003 with Adam's betas .9, .999; (c) nonlinear maps, 3,000 of
batch 100 at rate .0003 with these betas; (d) nonlinear maps, 10,000 of batch 24 at rate .001 (`dvae fit --config l1
--model.estimator RELAX --model.estimator.temperature 0.1 --replicas 3 --trainer.max_steps 20000` and so on, and `dvae curves`):

| estimator | (a) | (b) | (c) | (d) |
|---|---|---|---|---|
| REBAR | -128.91 ± 0.12 | -128.54 ± 0.14 | -143.74 ± 0.32 | -134.09 ± 0.10 |
| RELAX, r of two layers of 200 | -128.76 ± 0.22 | -128.27 ± 0.06 | -143.88 ± 0.25 | -133.99 ± 0.32 |
| r of one layer of 32 | -128.75 ± 0.05 | -128.15 ± 0.09 | -143.82 ± 0.36 | |
| temperature .1 at the start | -128.82 ± 0.07 | | | |
| independent noise | -128.71 ± 0.11 | | | |
| no decay of r's weights | -128.80 ± 0.07 | | | |
| phi's rate .01 | -128.67 ± 0.10 | | | |

None of them is told apart from the paper's RELAX, so that its arguments stay the defaults. An r of one layer of 32 units is as
good, and faster: `--config relax_small`.

What an update costs counts as much: with the small r .75 of RELAX's time, REBAR's .68 (`dvae benchmark --estimators '[RELAX,
RELAX(hidden=32, depth=1), REBAR]' --modes '[compiled]'`). Long runs in `make train`'s set-up, one seed, each on one of two cores
while the other was busy (`dvae fit --config l1 --config rebar --trainer.max_steps 700000` and so on, and `dvae curves RUN...
--levels '[-125, -120, -118, -117, -116, -115, -114]'`); thousands of updates, and seconds until the training ELBO was there, of
which the first 30 to 44 compile:

| estimator | -125 | -120 | -118 | -117 | -116 | -115 | -114 |
|---|---|---|---|---|---|---|---|
| REBAR | 40, 109 s | 115, 260 s | 180, 392 s | 234, 489 s | 317, 665 s | 429, 903 s | 645, 1395 s |
| RELAX, r of one layer of 32 | 35, 120 s | 86, 241 s | 141, 356 s | 186, 446 s | 242, 576 s | 322, 751 s | 418, 959 s |
| RELAX, r of two layers of 200 | 36, 143 s | 88, 320 s | 149, 530 s | 199, 700 s | 281, 974 s | 396, 1342 s | |

![Training ELBO against updates and seconds](../../.github/elbo_per_second.png)

The small r is first from -120 on: it needs as few updates as the large one, or fewer, at .75 of its time, and a third fewer than
REBAR in the end. REBAR is ahead in the first two minutes. Take `--config relax_small`, or REBAR for shorter runs.

# The gradient without its free noise

With a sampled KL, log q(b | x) has a gradient of its own to the encoder, whose mean is 0 (Roeder et al. 2017);
`--model.direct_gradient true` keeps it, as the paper does. Batch 24, training ELBO over the last twentieth of 20,000 updates with
linear maps and of 10,000 with nonlinear ones, three seeds (`dvae fit --config nl1 --model.estimator RELAX --model.direct_gradient
true --replicas 3 --trainer.max_steps 10000` and so on, and `dvae curves`; log-variances by `dvae evaluate`):

| maps, estimator | training ELBO without it | with it | gain, seed by seed | log-variance, encoder, without | with |
|---|---|---|---|---|---|
| linear, RELAX | -128.76 ± 0.22 | -128.86 ± 0.12 | 0.35, 0.16, -0.23 | -5.03 | -4.99 |
| REBAR | -128.91 ± 0.12 | -129.10 ± 0.20 | -0.07, 0.06, 0.59 | -5.00 | -4.91 |
| LOO | -132.71 ± 0.03 | -132.85 ± 0.11 | -0.08, 0.10, 0.40 | -3.25 | -3.27 |
| DisARM | -132.60 ± 0.15 | -132.43 ± 0.10 | -0.02, -0.25, -0.25 | -3.64 | -3.63 |
| nonlinear, RELAX | -133.99 ± 0.32 | -134.47 ± 0.35 | 0.43, 0.50, 0.52 | -3.53 | -3.63 |
| REBAR | -134.09 ± 0.10 | -134.34 ± 0.21 | 0.03, 0.35, 0.37 | -3.67 | -3.61 |
| LOO | -142.43 ± 0.40 | -142.50 ± 0.22 | 0.33, 0.18, -0.31 | -2.00 | -1.94 |
| DisARM | -142.28 ± 0.31 | -142.43 ± 0.24 | 0.23, 0.24, 0.00 | -2.22 | -2.26 |

Over twelve pairs each the gain is .06 ± .08 nats with linear maps and .24 ± .07 with nonlinear ones, most of it where the rest of
the noise is small. So it is left out by default.

# Time

A training step on one CPU thread, batch 24, in milliseconds (`dvae benchmark`, which takes turns between all and prints ratios, for
they carry over between machines where milliseconds do not). The floor is what the step's matrix products take alone, counted, at
the rate of the largest of them; `Trainer.fit` takes turns with the plain loop, which its ratio is to:

| estimator | eager | compiled | to REINFORCE | products, to its | to floor | `Trainer.fit` | to loop | steps/s | 8 replicas, each |
|---|---|---|---|---|---|---|---|---|---|
| REINFORCE | 2.29 | 0.82 | 1.00 | 1.00 | 2.3 | 0.87 | 1.11 | 1149 | 0.92 |
| LOO | 2.75 | 1.03 | 1.26 | 1.50 | 1.9 | 1.50 | 1.09 | 667 | 1.23 |
| REBAR | 4.55 | 1.52 | 1.87 | 2.00 | 2.2 | 1.48 | 1.08 | 674 | 1.57 |
| RELAX | 6.84 | 2.34 | 2.86 | 3.20 | 2.1 | 2.40 | 1.02 | 417 | 2.34 |
| RELAX(coupled=False) | 10.20 | 3.58 | 4.38 | 5.41 | 1.9 | 3.30 | 1.01 | 303 | 3.47 |

`dvae benchmark --peers` takes turns with the same step written for the purpose, in eager PyTorch and as fifty steps of JAX in one
`lax.scan`, of which a test says that they compute the same gradients; each has a process of its own. CPU time of a step, ms, one
thread, medians of turns, and of ours over the peer's, on a host that others were using, which moves a ratio by a tenth:

| estimator | eager | PyTorch | ratio | compiled | JAX | ratio |
|---|---|---|---|---|---|---|
| REINFORCE | 4.39 | 3.20 | 1.31 | 1.18 | 1.23 | 0.96 |
| LOO | 4.04 | 3.45 | 1.17 | 1.23 | 1.35 | 0.92 |
| REBAR | 8.40 | 6.53 | 1.30 | 2.12 | 2.15 | 0.92 |
| RELAX | 12.39 | 10.04 | 1.20 | 3.26 | 4.11 | 0.77 |
| RELAX(coupled=False) | 15.74 | 14.63 | 1.19 | 4.47 | 4.73 | 0.94 |

At batch 100 (`--batch_size 100`):

| estimator | eager | PyTorch | ratio | compiled | JAX | ratio |
|---|---|---|---|---|---|---|
| REINFORCE | 5.82 | 4.58 | 1.19 | 2.94 | 2.65 | 0.96 |
| LOO | 8.27 | 6.89 | 1.20 | 4.56 | 4.84 | 0.77 |
| REBAR | 15.12 | 13.73 | 1.13 | 6.05 | 7.11 | 0.87 |
| RELAX | 22.88 | 20.49 | 1.11 | 9.10 | 10.58 | 0.88 |
| RELAX(coupled=False) | 31.87 | 27.26 | 1.07 | 11.25 | 13.99 | 0.86 |

Compiled, coupled RELAX takes 1 / 3.1 of plain eager PyTorch's time. What is left of the eager step is not its operations, which
take as long as PyTorch's, but the code between them: Adam's pass over all moments pushes it out of the processor's caches in every
step.
`dvae benchmark --estimators '[RELAX]' --long 50000` shows the rate along a run: 2.13 ms a step in the first thousand, 2.12 in the
last. `make benchmark` times every estimator.

![Milliseconds a step, eager, compiled and of replicas, beside the matrix products alone](../../.github/benchmark.png)

On a GPU a step is bound by its launches, which a captured one has one of, and by Python where it is eager. `dvae benchmark
--device cuda` on one H100, batch 24, while most of that machine's cores were busy:

| estimator | eager, ms | compiled, ms | 8 replicas, ms |
|---|---|---|---|
| REINFORCE | 3.0 | 0.11 | 0.13 |
| LOO | 3.2 | 0.12 | 0.15 |
| REBAR | 6.3 | 0.13 | 0.24 |
| RELAX | 8.8 | 0.21 | 0.39 |
| RELAX(coupled=False) | 12.8 | 0.31 | 0.55 |

Through `Trainer.fit` a compiled step took .19 to .36 ms. What pays there is many models at a time: 64 replicas of RELAX
(`--estimators '[RELAX]' --replicas 64`) take 1.3 ms a step, a tenth of what they take one after the other.

How a compiled step grows, one quantity at a time (`dvae benchmark --estimators '[REINFORCE, LOO, REBAR, RELAX]' --grow --plot
growth.png`):

![Milliseconds a compiled step against batch size, latents, samples, layers and replicas](../../.github/growth.png)
"""

import importlib
from types import ModuleType

_MODULES = (
    "benchmark",
    "certify",
    "codes",
    "decoding",
    "evaluate",
    "export",
    "jigsaw",
    "report",
    "retrieval",
    "search",
    "tokens",
    "toy",
    "traverse",
    "variance",
)


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"dvae.lab.{name}")
    raise AttributeError(f"module 'dvae.lab' has no attribute {name!r}")
