r"""Fitting models with Lightning: steps, checkpoints, long runs, speed, and many models at once.

The one idea: a training step is a pure function of parameters, batch and noise, and the noise a function of seed and iteration
(`dvae.noise`). So a resumed run ends bit for bit where the uninterrupted one does, several steps can be one compiled function, and
several models one run.

# A run

`dvae.DiscreteVAE` is a LightningModule with manual optimization: one optimizer with two parameter groups, theta (encoder, decoder,
prior) on the ELBO and phi (the estimator's own parameters) on the variance of the gradient, updated together by one backward.
`max_steps` counts iterations; loggers, callbacks, `precision` and `accelerator` are Lightning's. Lightning refuses
`gradient_clip_val` and `accumulate_grad_batches` under manual optimization; the model has `gradient_clip_norm` and
`accumulate_grad_batches` instead.

`dvae fit` writes a new `runs/NAME/version_K`, never over another: `checkpoints/best.ckpt` (by the validation set's 100-sample
importance-weighted bound) and `last.ckpt`, `metrics.csv`, TensorBoard events, samples and reconstructions. A checkpoint is enough
by itself: it holds the model's and the data's configuration as plain values, is read with `weights_only=True`, and classes outside
`dvae` are imported only with `--trust`. `dvae fit --print_config` shows every setting, `dvae fit --help` explains them.

# Long runs

The same command with `--ckpt_path last` goes on from the newest `last.ckpt`, and ends bit for bit where the run would have ended
that was never stopped: parameters, moments, baselines, data order and noise. Ctrl-C and SIGTERM save and print that command; after
SIGKILL or a power cut the last interval is repeated. Checkpoints are written whole or not at all, and the one before stays beside
each as `last.previous.ckpt`.

Several processes, GPUs or nodes are Lightning's `--trainer.strategy ddp --trainer.devices 2 --trainer.num_nodes 1` (with
`--trainer.accelerator cpu` on CPUs): every process has its own data and noise, gradients of theta and phi are averaged, and the
parameters stay equal. `batch_size` is per process.

Whether that pays depends on how much there is to compute for each number that is averaged (`dvae benchmark --processes '[1, 2]'
--estimators '[RELAX]' --replicas 4`). Of the linear model it does not: on two CPU cores one process does an update of 24 images in
4.4 ms and two take 26 ms for one of 48, a third of the images a second. Models do not talk to each other: four replicas take
15.0 ms an update in one process and 8.4 in two, 1.78 times as many.

# Controls

What training maximises is `log p(x | b) - beta max(KL, free_bits)`, whose defaults make it the ELBO; what is logged, evaluated
and called ELBO is always the ELBO. `beta` weighs the KL (Higgins et al. 2017), `free_bits` are nats of an example's KL that cost
nothing (Kingma et al. 2016), and `kl_balance`, between 0 and 1, is the prior's share of the gradient of the KL, as in alpha
KL(sg(q) || p) + (1 - alpha) KL(q || sg(p)) (Hafner et al. 2021), with the top layer's closed form; the latter two need
`kl="analytic"`. They are buffers: a compiled step, replicas and checkpoints see their change, and `--sweep '{beta: [0.5, 1, 2]}'`
compares some. The gradient stays unbiased for this objective, by enumeration (`tests/models/test_controls.py`).

A schedule drives such a number, a rate or a temperature along the run, through points in updates; it is
`dvae.training.callbacks.Schedule`, and on the command line `--schedule`:

```bash
dvae fit --config configs/model/l1.yaml --model.estimator Concrete --trainer.max_steps 60 --name annealed \
  --schedule '{beta: {0: 0, 50: 1}, estimator.temperature: {points: {0: 1.0, 50: 0.5}, interpolation: exponential}}'
dvae fit --config configs/model/l1.yaml --model.estimator REBAR --trainer.max_steps 40 --name further --init_from runs/annealed
```

Its value is a function of the update alone, so that a resumed run has the same, and takes the place of the model's own argument.
It changes at every 50th update (`every_n_train_steps`), where a block of steps ends; the table has it as `schedule/beta`. `lr`
and `phi_lr` are theta's and phi's rates, and exclude `lr_scheduler`. A temperature that is learned, as REBAR's, has no schedule,
and one that has is in no checkpoint: a model that is loaded has its config's.

`--init_from` starts a run from the weights of a checkpoint, of the same model or of one with another estimator, likelihood or
network: all tensors of the same name and shape, the data's mean included. A line says what was taken and what is new; optimizer,
updates and seed start anew. Of several models `--init_from_replica` names one, and with `--replicas` all start from it. In Python
it is `dvae.init_from(model, checkpoint)`.

A model whose KL is below .1 nats after 1,000 updates, or that has no active unit in a validation after that, does not use its
code: one warning says so and what to try. `val/active_units` counts those of all layers (`dvae.metrics.ActiveUnits`), and
`val/code_entropy` is how many bits of a discrete latent are used, the mean over latents (`dvae.metrics.CodeEntropy`).

# Speed

`dvae fit` runs a whole step (encoder, estimator, the gradient of its variance, clipping, Adam for theta and phi) as one compiled
function, and fifty of them for each `training_step` of Lightning's; logs, validations, schedules, checkpoints and exact resumption
are where they are without. `--model.compile auto` compiles runs of 10,000 updates or more (4,000 with convolutions), for it takes
half a minute the first time; `true` and `false` say so. PyTorch keeps what it has compiled, in `TORCHINDUCTOR_CACHE_DIR`: `time
dvae fit --config l1 --config relax --trainer.max_steps 20000` took 170 s from an empty folder and 122 s from then on, to the same
bits (one thread of a busy host). An epoch's last, smaller batch runs as it is. What cannot be compiled
(code of a subclass that `torch.compile` does not take, an optimizer other than Adam and AdamW, a callback that looks at gradients)
runs step by step, and a callback with hooks around a batch sees every batch: steps are then taken one at a time, as with
`--model.steps_per_execution 1`. `dvae.lab.benchmark` has the figures.

On a GPU batches are cut there, the step computes its own noise, and the compiled step is captured as a CUDA graph and replayed;
where it cannot be captured, a warning says so and it is launched as it is. A step of RELAX takes .21 ms on an H100, one of
eight replicas .39 (`dvae.lab`); `time dvae fit --config l1 --config relax --trainer.max_steps 20000` took 48 s there, 22 until
the first 200 updates were compiled and done, 9 for the others with their validations. What evaluates, validates and binarizes
draws on the CPU, so that figures and models are those of a CPU, which `tests/training/test_gpu.py` checks; `--data.dynamic`
waits for that in every batch. `--matmul_precision high` (TensorFloat-32) and `--trainer.precision bf16-mixed` trade precision
of the matrix products for speed; a CPU is slower in bf16-mixed. There RELAX with the linear model, 20,000 steps and
`--model.compile true` reaches a test ELBO of -128.46 ± .28, and with `--trainer.precision bf16-mixed` -128.35 ± .28.

# Replicas

Replicas are several models in one run: seeds, or a sweep, each the model that a run of its own gives:

```bash
dvae fit --config configs/model/l1.yaml --config configs/estimator/rebar.yaml --trainer.max_steps 100 --name sweep \
  --replicas 2 --sweep '{lr: [0.001, 0.003], estimator.temperature: [0.5]}'
dvae evaluate runs/sweep --num_samples 5
dvae sample runs/sweep --replica 3 --out pictures
dvae extract runs/sweep --replica 3 --out best.ckpt
dvae curves runs/sweep
```

Replica k of a setting is the run of `--seed_everything` + k and `--data.seed` + k. Learning rates, weight decay and what an
estimator holds as a tensor (initial temperature and eta) can be swept. Metrics are logged as mean, standard error and for each
replica; `dvae evaluate` prints a row for each and the mean of each setting; a replica that diverges is named and stays as it was,
and the others go on. On one CPU core eight replicas take about as long as eight runs; the step of all is one, so that a GPU has
more to do at a time. With `--trainer.strategy ddp --trainer.devices 2` every process trains its share of the models, each bit for
bit as in one process. In Python it is `dvae.replicate(model, 8)`, or `dvae.Replicas` of a list of models.

Of several estimators, `dvae compare --estimators '[RELAX, LOO(num_samples=4)]' --seeds 3 --config l1` makes one run of replicas
each, in `runs/compare/l1/version_0`, evaluates them, and prints means and standard errors over seeds; `curves.png` has their bands.
The same command goes on where it was stopped, further estimators join what is there, and other arguments are a comparison of their
own. What cannot be replicas (another optimizer than Adam, an estimator that `torch.vmap` does not take) has a run for each seed.

# A sweep on several machines

`dvae fit --sweep '{lr: [0.001, 0.003], estimator: [LOO, RELAX]}' --engine optuna --storage sqlite:///sweep.db --name s` gives
each setting and seed a run of its own, below `runs/s`, and can change any argument of the model. The same command started
again, in another terminal or on another machine that has the same database and folder, is a further worker: the trials are
shared, and each is trained once (extra `sweep`, Optuna; `dvae.training.study` says why not Ray Tune). For several machines the
storage is the address of a server, such as `postgresql://...`.

A worker that is killed loses nothing: when it was not heard of for three heartbeats (`--heartbeat 30`), another one goes on
from its trial's last checkpoint, to the same bits as if nothing had happened; so does the same command, started anew. `--pruner
median` or `halving` ends runs early whose `--metric` falls behind at a validation; ranges, `--sweep '{lr: {log: [0.0001,
0.01]}}' --trials 20`, are sampled. Every worker waits for the last trial and writes `sweep.csv`, `sweep.json` in the form of
`dvae compare`'s figures, and what `dvae curves runs/s` draws.
"""
