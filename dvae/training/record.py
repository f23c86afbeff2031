"""What a checkpoint of this project holds besides Lightning's own entries, the only place that knows.

``checkpoint["dvae"]`` of one model::

    class_path, data, seed, iteration, train_elbo    how to build it, where its noise stands, what was logged last
    running, num_running                             sums of what the iterations since the last log measured, by name
    format                                           3; absent from 0.1.0's, see :func:`upgraded`

and of several: ``data``, ``iteration``, ``running`` ([R] each), ``num_running``, ``format``, and ``replicas``, for each model the
entries that an ordinary checkpoint has of it, its hyper-parameters, ``setting`` and ``seed_offset``. Several processes with models
of their own write one file: what one process would have written. Of policies (:class:`dvae.rl.PolicyGradient`) there are their
``episodes``, which no autoencoder has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dvae.config import current_path, public_path
from dvae.errors import InputError
from dvae.networks import ConvDecoder, ConvEncoder
from dvae.training import lightning

if TYPE_CHECKING:
    from dvae.models import VAE
    from dvae.training.module import DiscreteVAE
    from dvae.training.run import Training
    from dvae.training.sweep import Replicas

__all__ = [
    "data_of",
    "extract",
    "is_policy",
    "load",
    "model_path",
    "num_replicas",
    "save",
    "settings_of",
    "train_elbo_of",
    "upgraded",
    "with_prior",
]

_FORMAT = 3
_RELU_IN_FORMAT_1 = (ConvEncoder, ConvDecoder)


# Reading one field


def num_replicas(checkpoint: Mapping[str, Any]) -> int | None:
    """R of a checkpoint of several models; None for one of a single model."""
    entries = checkpoint["dvae"].get("replicas")
    return len(entries) if isinstance(entries, list) else None


def settings_of(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What distinguishes each model of a checkpoint of several."""
    return [dict(entry["setting"]) for entry in checkpoint["dvae"].get("replicas") or []]


def data_of(checkpoint: Mapping[str, Any]) -> Any:
    """The config of the data module that the run was trained on; None where it has none."""
    return checkpoint["dvae"].get("data")


def is_policy(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of agents that act, and not of an autoencoder."""
    return "episodes" in checkpoint["dvae"]


def train_elbo_of(checkpoint: Mapping[str, Any]) -> float | None:
    """The training ELBO that the run logged last, nats."""
    return checkpoint["dvae"].get("train_elbo")


def model_path(checkpoint: Mapping[str, Any]) -> Any:
    """The import path of the model's class, where it is today."""
    path = checkpoint["dvae"].get("class_path")
    return current_path(path) if isinstance(path, str) else path


def upgraded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint, of this version or an earlier one, whose configs mean to this version what they meant to theirs.

    The convolutional networks were ReLU networks before they had an ``activation``, and the sampled KL had its direct gradient
    before there was a ``direct_gradient``.
    """
    if _had_direct_gradient(checkpoint["dvae"]):
        for entry in [checkpoint, *(checkpoint["dvae"].get("replicas") or [])]:
            arguments = entry.get("hyper_parameters") if isinstance(entry, dict) else None
            if isinstance(arguments, dict) and arguments.get("kl") == "sampled":
                arguments.setdefault("direct_gradient", True)
    if "format" not in checkpoint["dvae"]:
        waiting, seen = [checkpoint["hyper_parameters"], checkpoint["dvae"].get("replicas")], set()
        while waiting:  # a damaged file may hold what holds itself
            node = waiting.pop()
            if isinstance(node, (dict, list)) and id(node) not in seen:
                seen.add(id(node))
                if isinstance(node, dict):
                    _say_relu(node)
                waiting += node.values() if isinstance(node, dict) else node
    return checkpoint


def _had_direct_gradient(saved: Mapping[str, Any]) -> bool:
    return saved.get("format") in (None, 2)


def _say_relu(config: dict[Any, Any]) -> None:
    path, arguments = config.get("class_path"), config.get("init_args") or {}
    names = [cls.__name__ for cls in _RELU_IN_FORMAT_1]
    if (
        isinstance(path, str)
        and path.startswith("dvae.networks.")
        and path.rpartition(".")[2] in names
        and isinstance(arguments, dict)
    ):
        config["init_args"] = {"activation": "relu", **arguments}


def with_prior(checkpoint: Mapping[str, Any], model: VAE) -> dict[str, Any]:
    """A checkpoint of one model with another prior, to measure and to start from: without what a run needs to go on.

    Arguments:
        checkpoint: of one model.
        model: the same, with that prior.
    """
    others = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not name.startswith("prior.")}
    prior = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("prior.")}
    left_out = ("optimizer_states", "lr_schedulers", "callbacks", "loops")
    return {
        **{name: value for name, value in checkpoint.items() if name not in left_out},
        "state_dict": {**others, **{name: tensor.cpu() for name, tensor in prior.items()}},
        "hyper_parameters": {**checkpoint["hyper_parameters"], "prior": model.prior.config},
        "dvae": {**checkpoint["dvae"], "train_elbo": None, "running": {}, "num_running": 0},
    }


# Writing and reading a run


def save(run: Training, checkpoint: dict[str, Any]) -> None:
    """Add the record of a run to what Lightning saves; every process of the run must join."""
    several = run.apart
    tally, names = run.tally, run.metric_names
    if tally is not None and not several and lightning.is_attached(run):
        tally = run.tally = run.trainer.strategy.reduce(tally)
    running = {} if tally is None else {name: totals.clone() for name, totals in zip(names, tally.unbind(-1), strict=True)}
    entry: dict[str, Any] = {
        "class_path": run.models[0].config["class_path"] if not several else public_path(type(run)),
        "data": getattr(lightning.data_module_of(run), "config", None),
        "iteration": run.iteration,
        "running": running,
        "num_running": run.num_tallied,
        "format": _FORMAT,
    }
    if several:
        checkpoint["hyper_parameters"] = {}
        entry["replicas"] = [_entry(run, index, model) for index, model in enumerate(run.models)]  # type: ignore[arg-type]
    else:
        entry["running"] = {name: totals[0] for name, totals in running.items()}
        entry |= {"seed": run.models[0].seed, "train_elbo": _item(run.train_elbo.get(0))}
    checkpoint["dvae"] = entry
    if several and lightning.is_attached(run):
        _join(run, checkpoint)


def _entry(run: Replicas, index: int, model: DiscreteVAE) -> dict[str, Any]:
    """What an ordinary checkpoint holds of one model."""
    config = model.config
    return {
        "class_path": config["class_path"],
        "hyper_parameters": config["init_args"],
        "setting": run.settings[index],
        "seed": model.seed,
        "seed_offset": run.seed_offsets[index],
        "iteration": run.stopped.get(index, run.iteration),
        "train_elbo": _item(run.train_elbo.get(index)),
    }


def _item(value: Tensor | None) -> float | None:
    return None if value is None else value.item()


def load(run: Training, checkpoint: dict[str, Any]) -> None:
    """Put a run back where it was when it was saved, parameters and moments apart, which Lightning loads.

    Raises:
        InputError: the checkpoint is of other models.
    """
    saved, several = checkpoint.get("dvae", {}), run.apart
    if several:
        _share_out(run, checkpoint)  # type: ignore[arg-type]
        saved = checkpoint["dvae"]
    elif "replicas" in saved:
        raise InputError(
            f"the checkpoint holds {len(saved['replicas'])} replicas, expected one model: take one out with dvae extract, or "
            "give the --replicas and --sweep of its run"
        )
    if "format" not in saved:
        _require_relu(run)
    if _had_direct_gradient(saved):
        for model in run.models:
            model.keep_direct_gradient()
    entries = saved["replicas"] if several else [saved]
    run.iteration = saved.get("iteration", 0)
    running = saved.get("running", {})
    run.metric_names, run.num_tallied = list(running), saved.get("num_running", 0)
    run.tally = torch.stack([totals.reshape(-1) for totals in running.values()], -1) if running else None
    for index, (model, entry) in enumerate(zip(run.models, entries, strict=True)):
        model.seed = entry.get("seed", model.seed)
        if entry.get("train_elbo") is not None:
            run.train_elbo[index] = torch.tensor(entry["train_elbo"], dtype=torch.float64)
        if several and entry["iteration"] < run.iteration:
            run.stopped[index] = entry["iteration"]
    if checkpoint["state_dict"]["models.0.mean" if several else "mean"].dtype == torch.float64:
        run.double()  # Lightning sets the precision after it has loaded the parameters, which would be rounded


def _require_relu(run: Training) -> None:
    for name, module in run.named_modules():
        if isinstance(module, _RELU_IN_FORMAT_1) and module.activation != "relu":
            raise InputError(
                f"the checkpoint is of an earlier version, whose {type(module).__name__} was a ReLU network, but {name} is built "
                f"with {module.activation!r}: give it activation='relu'"
            )


# Several models in one file


def extract(checkpoint: dict[str, Any], replica: int) -> dict[str, Any]:
    """The ordinary checkpoint of one model out of one of several: as a run of its own would have left it, but for callbacks.

    Arguments:
        checkpoint: of several models.
        replica: which, from 0.

    Raises:
        InputError: the checkpoint holds a single model, no such replica, or is damaged.
    """
    count = num_replicas(checkpoint)
    if count is None:
        raise InputError(f"replica {replica} was asked for, but the checkpoint holds a single model")
    if not 0 <= replica < count:
        raise InputError(f"replica must be from 0 to {count - 1}, got {replica}")
    try:
        return _extracted(checkpoint, replica, count)
    except Exception as error:  # whatever a damaged value leads to
        raise InputError(f"the checkpoint is damaged: replica {replica} cannot be taken out ({type(error).__name__})") from error


def _extracted(checkpoint: dict[str, Any], replica: int, count: int) -> dict[str, Any]:
    part = _part(checkpoint, range(replica, replica + 1), count)
    entry, data = dict(part["dvae"]["replicas"][0]), part["dvae"]["data"]
    if isinstance(data, dict):
        arguments = dict(data["init_args"])
        data = {**data, "init_args": {**arguments, "seed": arguments.get("seed", 0) + entry["seed_offset"]}}
    prefix = "models.0."
    return {
        **part,
        # Copies: a tensor is a part of one that holds it for all models.
        "state_dict": {name.removeprefix(prefix): tensor.clone() for name, tensor in part["state_dict"].items()},
        "optimizer_states": [_copied(state) for state in part["optimizer_states"]],
        "hyper_parameters": entry["hyper_parameters"],
        "callbacks": {},
        "dvae": {
            **{name: entry[name] for name in ("class_path", "seed", "iteration", "train_elbo")},
            "setting": dict(entry["setting"]),
            "data": data,
            "running": {name: totals[0].clone() for name, totals in part["dvae"]["running"].items()},
            "num_running": part["dvae"]["num_running"],
            **{name: value for name, value in part["dvae"].items() if name == "format"},
        },
    }


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    copies = {index: {key: value.clone() for key, value in own.items()} for index, own in state["state"].items()}
    return {**state, "state": copies}


def _part(checkpoint: dict[str, Any], share: range, count: int) -> dict[str, Any]:
    """The checkpoint of some of its ``count`` models, which are counted from 0 again."""
    record = checkpoint["dvae"]
    states = checkpoint.get("optimizer_states", [])
    tensors = {}
    for name, tensor in checkpoint["state_dict"].items():
        prefix, index, rest = name.split(".", 2)
        if int(index) in share:
            tensors[f"{prefix}.{int(index) - share.start}.{rest}"] = tensor
    return {
        **checkpoint,
        "state_dict": tensors,
        "optimizer_states": [_part_of_optimizer(state, share, count) for state in states],
        "lr_schedulers": [
            {name: _slice(value, share, count) if _is_of_each_group(name, value) else value for name, value in state.items()}
            for state in checkpoint.get("lr_schedulers", [])
        ],
        "dvae": {
            **record,
            "replicas": record["replicas"][share.start : share.stop],
            "running": {name: totals[share.start : share.stop] for name, totals in record["running"].items()},
        },
    }


def _part_of_optimizer(state: dict[str, Any], share: range, count: int) -> dict[str, Any]:
    groups = _slice(state["param_groups"], share, count)
    order = [index for group in groups for index in group["params"]]
    renamed = {old: new for new, old in enumerate(order)}
    own = {renamed[index]: state["state"][index] for index in order if index in state["state"]}
    return {"state": own, "param_groups": [{**group, "params": [renamed[i] for i in group["params"]]} for group in groups]}


def _is_of_each_group(name: str, value: Any) -> bool:
    """Whether an entry of a scheduler's state, such as ``base_lrs``, holds a value for each group of the optimizer."""
    return isinstance(value, list) and ("lr" in name or "momentum" in name)


def _slice(values: Sequence[Any], share: range, count: int) -> list[Any]:
    """The part of a list that has equally many values of each model."""
    size = len(values) // count
    return list(values[share.start * size : share.stop * size])


# Several processes


def _share_out(run: Replicas, checkpoint: dict[str, Any]) -> None:
    """Leave in the checkpoint what is this process's."""
    labels = settings_of(checkpoint)
    if labels != run.all_settings:
        raise InputError(
            f"the checkpoint must hold the same replicas as the run, {run.all_settings}, but holds {labels or 'a single model'}"
        )
    if len(run.share) < len(labels):
        checkpoint.update(_part(checkpoint, run.share, len(labels)))


def _join(run: Training, checkpoint: dict[str, Any]) -> None:
    """Make one process's checkpoint that of all: models in the order of processes."""
    parts = lightning.gathered(run.trainer, {key: checkpoint[key] for key in _JOINED if key in checkpoint})
    if len(parts) == 1:
        return
    joined: dict[str, Any] = {"state_dict": {}}
    first = 0
    for part in parts:
        for name, tensor in part["state_dict"].items():
            prefix, index, rest = name.split(".", 2)
            joined["state_dict"][f"{prefix}.{int(index) + first}.{rest}"] = tensor
        first += len(part["dvae"]["replicas"])
    for key in ("optimizer_states", "lr_schedulers"):
        if key in checkpoint:
            joined[key] = [_joined_state(states) for states in zip(*(part[key] for part in parts), strict=True)]
    records = [part["dvae"] for part in parts]
    joined["dvae"] = {
        **checkpoint["dvae"],
        "replicas": [entry for record in records for entry in record["replicas"]],
        "running": {name: torch.cat([record["running"][name] for record in records]) for name in checkpoint["dvae"]["running"]},
    }
    checkpoint.update(joined)


_JOINED = ("state_dict", "optimizer_states", "lr_schedulers", "dvae")


def _joined_state(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One optimizer's state, or one scheduler's, out of those of all processes."""
    if "param_groups" not in states[0]:
        return {
            name: [value for state in states for value in state[name]] if _is_of_each_group(name, first) else first
            for name, first in states[0].items()
        }
    moments: dict[int, Any] = {}
    groups = []
    first = 0
    for state in states:
        moments |= {index + first: own for index, own in state["state"].items()}
        groups += [{**group, "params": [index + first for index in group["params"]]} for group in state["param_groups"]]
        first += sum(len(group["params"]) for group in state["param_groups"])
    return {"state": moments, "param_groups": groups}
