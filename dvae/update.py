r"""A whole training step as one compiled function: losses, gradients, clipping and Adam, of one model or of several at once.

.. math::
    m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
    \theta \leftarrow \theta - \alpha \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

for theta and phi alike (Adam, Kingma & Ba 2015), with g from :func:`dvae.step.step_loss`. Written with ``torch.func``, so that the
one graph that ``torch.compile`` sees holds everything between a batch and the next parameters, and ``torch.vmap`` makes it the step
of many models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.func import functional_call

from dvae.step import step_loss

if TYPE_CHECKING:
    from dvae.models import DiscreteVAE

__all__ = ["FAILURES", "NotCompilable", "Update", "compiled", "fits", "warn_not_compiled"]

FAILURES = (TorchDynamoException, FailOnRecompileLimitHit)
"""What a call of a compiled function raises where it cannot be compiled, or not once more."""

Tensors = dict[str, Tensor]


# What a step is told of each group of parameters: the rate and the factor on the root of the second moment, both with Adam's
# correction of the start; the weight decay with its sign changed; beta and 1 - beta of both moments; whether the group moves.
_SETTINGS = ("rate", "factor", "negative_decay", "beta1", "rest1", "beta2", "rest2", "moves")


class Update:
    """The training step of one model, or of R models of one architecture; it changes parameters, buffers and moments in place.

    A step whose loss is not finite changes nothing, and neither do those after it: :attr:`failed` says so, without a look at the
    device in every step. After a block of steps, call :meth:`end_block`. If the first step cannot be compiled, its call raises one
    of :data:`FAILURES` and has changed nothing; if a later one cannot, a warning says so, and steps run as they are from there on.

    Arguments:
        models: R of them. If R > 1, their parameters, buffers and moments become views of stacked tensors.
        optimizer: Adam over the parameters of all of them; its learning rates may change between steps.
        x: a batch of one model, [B, num_pixels], to learn the metrics' names from.
        batch_size: the B of nearly all batches. One of another size, such as the last of an epoch, is too rare to compile code
            for, and runs as it is. With None there is code for every size.
        compile: whether the step is compiled.

    Attributes:
        names: what a step measures.
        tally: [M], or [R, M], sums of what the steps so far measured; the caller may set it, in place.
        last: [M], or [R, M], what the last step measured.
        steps: [] or [R], how many were done.
        failed, loss: [] or [R], whether a loss was not finite, and the last one.

    Raises:
        NotCompilable: the step depends on more than parameters, batch and noise.
    """

    def __init__(
        self,
        models: Sequence[DiscreteVAE],
        optimizer: torch.optim.Adam,
        x: Tensor,
        batch_size: int | None = None,
        *,
        compile: bool = True,
    ) -> None:
        template, several = models[0], len(models) > 1
        self.optimizer = optimizer
        self.names = _metric_names(template, x)
        group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        trained = [_named(model, lambda p: p.requires_grad and id(p) in group_of) for model in models]
        fixed = [_named(model, lambda p: not (p.requires_grad and id(p) in group_of)) for model in models]
        moments = [{name: _moments(optimizer, p) for name, p in own.items()} for own in trained]
        # Each model's groups of the optimizer, in one order: theta's, and phi's where there is a phi.
        self._groups = [list(dict.fromkeys(group_of[id(p)] for p in own.values())) for own in trained]
        position = {index: position for position, index in enumerate(self._groups[0])}
        group = {name: position[group_of[id(p)]] for name, p in trained[0].items()}
        theta = {id(p) for p in template.theta()}
        self._is_theta = [any(id(p) in theta for name, p in trained[0].items() if group[name] == g) for g in range(len(position))]
        # For each model and group, Adam's counters of its parameters, and their common value.
        self._counters = [
            [[state["step"] for name, state in own.items() if group[name] == index] for index in range(len(position))]
            for own in moments
        ]
        self._counts = [[int(counters[0]) for counters in own] for own in self._counters]
        self._before = [(0, list(own)) for own in self._counts]
        self._moves: list[bool] = []
        self._shape: torch.Size | None = None

        self._state = {
            "parameters": _stacked(trained),
            "fixed": _stacked(fixed),
            "buffers": _stacked([dict(model.named_buffers()) for model in models]),
            "exp_avg": _stacked_moments(moments, "exp_avg"),
            "exp_avg_sq": _stacked_moments(moments, "exp_avg_sq"),
        }
        shape, device = (len(models),) if several else (), template.mean.device
        self.tally = torch.zeros(*shape, len(self.names), dtype=template.mean.dtype, device=device)
        self.last = torch.zeros_like(self.tally)
        self.steps = torch.zeros(shape, dtype=torch.int64, device=device)
        self.failed = torch.zeros(shape, dtype=torch.bool, device=device)
        self.loss = torch.zeros(shape, dtype=template.mean.dtype, device=device)
        self._records = {name: _not_scalar(getattr(self, name)) for name in ("tally", "last", "steps", "failed", "loss")}
        self._settings = torch.zeros(*shape, len(position), len(_SETTINGS), dtype=template.mean.dtype, device=device)
        self._clock = torch.zeros(1, dtype=torch.int64, device=device)
        self._next_iteration = 0
        streams = torch.tensor([model.noise_stream(0) for model in models], device=device)

        # Code that torch 2.11 compiles leaves scalars as they are: they come and go as tensors of one element.
        scalars = {key: [name for name, tensor in part.items() if tensor.dim() == 0] for key, part in self._state.items()}
        self._state = {key: {name: _not_scalar(tensor) for name, tensor in part.items()} for key, part in self._state.items()}
        scalar_records = [] if several else ["steps", "failed", "loss"]
        one = _one_step(template, self.names, group, optimizer.param_groups[0])
        every = torch.vmap(one, in_dims=(0, 0, 0, None, 0), randomness="different") if several else one

        def step(state: dict[str, Tensors], records: Tensors, settings: Tensor, streams: Tensor, clock: Tensor, x: Tensor) -> None:
            old = {key: _with_scalars(state[key], names) for key, names in scalars.items()}
            of_each = streams if several else streams[0]
            new_state, new_records = every({**old, **_with_scalars(records, scalar_records)}, settings, of_each, clock[0], x)
            for key, tensors in new_state.items():
                for name, tensor in tensors.items():
                    state[key][name].copy_(tensor)
            for key, tensor in new_records.items():
                records[key].copy_(tensor)
            clock.add_(1)

        self._plain, self._compiled = step, compiled(step) if compile else step
        self._common = _Replayed(self._launch) if compile and device.type == "cuda" else self._launch
        self._batch_size = batch_size
        self._is_first = True
        self._kept = (self._state, self._records, self._settings, streams, self._clock)

    def __call__(self, x: Tensor, iteration: int, move_theta: bool = True) -> None:
        """One step.

        Arguments:
            x: a batch, [B, num_pixels]; of several models, [R, B, num_pixels].
            iteration: from 0 on; the step's noise is that of this iteration.
            move_theta: whether theta is to change, or phi alone.
        """
        self._moves.append(move_theta)
        self._set(move_theta)
        if iteration != self._next_iteration:
            self._clock.fill_(iteration)
        self._next_iteration = iteration + 1
        rare = self._batch_size not in (None, x.shape[-2])
        with torch.no_grad():
            try:
                (self._plain if rare else self._common)(*self._kept, x)
            except FAILURES as error:
                if self._is_first:
                    raise
                warn_not_compiled(error)
                self._common = self._plain
                self._plain(*self._kept, x)
        self._is_first = False

    def _launch(self, *kept_and_batch: Any) -> None:
        shape = kept_and_batch[-1].shape
        # Within a block nothing runs between two steps that could have changed what was compiled, so only the first looks.
        unguarded, self._shape = shape == self._shape, shape
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True) if unguarded else nullcontext():
            self._compiled(*kept_and_batch)

    def end_block(self) -> list[int]:
        """Tell the optimizer how many steps were done; the next step will look whether anything has changed meanwhile.

        Returns:
            of each model, how many steps of this block were done: all, unless one failed.
        """
        steps = self.steps.reshape(-1).tolist()
        done = [after - before for after, (before, _) in zip(steps, self._before, strict=True)]
        for index, own in enumerate(self._counters):
            before, counts = self._before[index]
            moves = self._moves[: steps[index] - before]
            for group, counters in enumerate(own):
                self._counts[index][group] = counts[group] + (sum(moves) if self._is_theta[group] else len(moves))
                for counter in counters:
                    counter.fill_(self._counts[index][group])
            self._before[index] = (steps[index], list(self._counts[index]))
        self._moves, self._shape = [], None
        return done

    def _set(self, move_theta: bool) -> None:
        """What an update needs to know of each group.

        They are numbers of the host's: inside a compiled loop over a tensor they would be computed again for every element.
        """
        rows = []
        for own, counts in zip(self._groups, self._counts, strict=True):
            for group, index in enumerate(own):
                moves = move_theta or not self._is_theta[group]
                counts[group] += moves
                count, settings = max(1, counts[group]), self.optimizer.param_groups[index]
                beta1, beta2 = settings["betas"]
                rate, factor = float(settings["lr"]) / (1 - beta1**count), (1 - beta2**count) ** -0.5
                rows.append((rate, factor, -settings["weight_decay"], beta1, 1 - beta1, beta2, 1 - beta2, float(moves)))
        new = torch.tensor(rows, dtype=self._settings.dtype).reshape(self._settings.shape)
        # From pinned memory the copy to a GPU does not wait for what the GPU still has to do.
        self._settings.copy_(new.pin_memory() if self._settings.is_cuda else new, non_blocking=True)


def compiled(function: Callable) -> Callable:
    """The function compiled whole, apart from all others made of the same code.

    What ``torch.compile`` makes of a function belongs to the function's code, and only so much may: the ninth model of one process
    would not be compiled.
    """
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    # Code for one shape is faster than code for any; a partial graph would be slow silently.
    return torch.compile(own, dynamic=False, fullgraph=True)


class _Replayed:
    """A step on a GPU, captured as a CUDA graph after some calls and replayed from then on: one launch in place of each kernel's.

    A graph reads and writes where it did when it was captured. So each batch is copied to one place for its shape, from the first
    call on; everything else that a step is given must be the same tensors in every call, changed in place.
    """

    _WARM_UP = 3  # calls of each shape that compile, choose kernels and fill caches, none of which a capture may do

    def __init__(self, step: Callable[..., None]) -> None:
        self._step = step
        self._calls: Counter[torch.Size] = Counter()
        self._places: dict[torch.Size, Tensor] = {}
        self._graphs: dict[torch.Size, torch.cuda.CUDAGraph] = {}
        self._fails = False

    def __call__(self, *kept_and_batch: Any) -> None:
        *kept, x = kept_and_batch
        if x.shape not in self._places:
            self._places[x.shape] = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        place = self._places[x.shape].copy_(x)
        self._calls[x.shape] += 1
        if x.shape not in self._graphs and self._calls[x.shape] > self._WARM_UP and not self._fails:
            self._capture(*kept, place)
        if x.shape in self._graphs:
            self._graphs[x.shape].replay()
        else:
            self._step(*kept, place)

    def _capture(self, *kept_and_place: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as a data loader's, may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(*kept_and_place)
        except (RuntimeError, *FAILURES) as error:  # nothing has run yet, so that the step can still be done
            rank_zero_warn(f"the step cannot be captured as a CUDA graph and is launched as it is: {str(error).splitlines()[0]}")
            self._fails = True
            return
        self._graphs[kept_and_place[-1].shape] = graph


class NotCompilable(RuntimeError):
    """A step cannot be compiled; the message says why."""


def warn_not_compiled(error: Exception) -> None:
    """Say why the step is not compiled."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    rank_zero_warn(f"the step cannot be compiled and runs as it is: {reason}")


def fits(trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> bool:
    """Whether an update of this run is no more than an :class:`Update`.

    Not so with another optimizer than Adam, several processes, scaled gradients, or anything that wants to see the gradients.
    """
    hooks = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "optimizer_step")
    module: Any = trainer.lightning_module
    watched = any(is_overridden(hook, callback) for callback in trainer.callbacks for hook in hooks[:-1])  # type: ignore[attr-defined]
    watched = watched or any(is_overridden(hook, module) for hook in hooks)
    watched = watched or bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
    options = ("amsgrad", "maximize", "decoupled_weight_decay")
    plain = type(optimizer) is torch.optim.Adam and not any(group.get(name) for group in optimizer.param_groups for name in options)
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if plain:
        # Learning-rate schedulers warn where they are stepped without the optimizer's own step.
        optimizer._opt_called = True  # type: ignore[attr-defined]
    return plain and not watched and not scaled and trainer.world_size == 1


class _Loss(nn.Module):
    """A module around the model, because ``functional_call`` calls ``forward``."""

    def __init__(self, model: DiscreteVAE, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = list(names)

    def forward(self, stream: Tensor, clock: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensors]]:
        output = step_loss(self.model, x, self.model.training_noise(x.shape[0], stream, clock))
        metrics = torch.stack([output.metrics[name].to(self.model.mean.dtype) for name in self.names])
        return output.loss, (output.loss.detach(), metrics, dict(self.model.named_buffers()))


def _one_step(model: DiscreteVAE, names: Sequence[str], group: dict[str, int], adam: Any) -> Callable:
    """A pure function from state, settings, where the noise comes from, and batch to the next state and records."""
    loss_of, clip, eps = _Loss(model, names), model.gradient_clip_norm, adam["eps"]

    def step(state: dict[str, Any], settings: Tensor, stream: Tensor, clock: Tensor, x: Tensor) -> Any:
        fixed = {f"model.{name}": tensor for name, tensor in {**state["buffers"], **state["fixed"]}.items()}

        def loss(parameters: Tensors) -> Any:
            own = {f"model.{name}": tensor for name, tensor in parameters.items()}
            return functional_call(loss_of, {**own, **fixed}, (stream, clock, x))

        gradients, (value, metrics, buffers) = torch.func.grad(loss, has_aux=True)(state["parameters"])
        keep = state["failed"] | ~torch.isfinite(value)
        bound = None if clip is None else _bounds(gradients, group, clip)
        new: dict[str, Tensors] = {"parameters": {}, "exp_avg": {}, "exp_avg_sq": {}}
        for name, gradient in gradients.items():
            rate, factor, negative_decay, beta1, rest1, beta2, rest2, moves = settings[group[name]].unbind()
            stay = keep | (moves == 0)
            parameter = state["parameters"][name]
            # A sum with a matrix product would be compiled into a product that starts from a copy of the other summand.
            gradient = (gradient if bound is None else gradient * bound[group[name]]) - negative_decay * parameter
            exp_avg = beta1 * state["exp_avg"][name] + rest1 * gradient
            exp_avg_sq = beta2 * state["exp_avg_sq"][name] + rest2 * gradient * gradient
            moved = parameter - rate * exp_avg / (exp_avg_sq.sqrt() * factor + eps)
            for key, tensor in (("parameters", moved), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
                new[key][name] = torch.where(stay, state[key][name], tensor)
        new["buffers"] = {name: torch.where(keep, old, buffers[name]) for name, old in state["buffers"].items()}
        records = {
            "tally": torch.where(keep, state["tally"], state["tally"] + metrics),
            "last": torch.where(state["failed"], state["last"], metrics),
            "steps": state["steps"] + ~keep,
            "failed": keep,
            "loss": torch.where(state["failed"], state["loss"], value.to(state["loss"].dtype)),
        }
        return new, records

    return step


def _bounds(gradients: Tensors, group: dict[str, int], clip: float) -> dict[int, Tensor]:
    """For each group the factor that bounds its gradient's norm, that of ``torch.nn.utils.clip_grad_norm_``."""
    squares: dict[int, list[Tensor]] = {}
    for name, gradient in gradients.items():
        squares.setdefault(group[name], []).append(gradient.square().sum())
    return {index: (clip / (torch.stack(own).sum().sqrt() + 1e-6)).clamp(max=1.0) for index, own in squares.items()}


class _Names(nn.Module):
    def __init__(self, model: DiscreteVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[str]:
        noise = self.model.training_noise(len(x), self.model.noise_stream(0), torch.zeros((), dtype=torch.int64, device=x.device))
        return list(step_loss(self.model, x, noise).metrics)


def _metric_names(model: DiscreteVAE, x: Tensor) -> list[str]:
    """What a step measures, found out by doing one that leaves no trace."""
    buffers = {f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()}
    model.clock_was_read = False
    names: list[str] = []
    try:
        with torch.no_grad():
            names = functional_call(_Names(model), buffers, (x[:1],))
    except RuntimeError:  # a replica has no trainer
        if not model.clock_was_read:
            raise
    if model.clock_was_read:
        raise NotCompilable(
            "it looks at the iteration or the trainer, for whose every change it would be compiled anew; a setting that changes "
            "can be a buffer, which a callback sets"
        )
    return names


def _named(model: DiscreteVAE, wanted: Callable[[Tensor], bool]) -> Tensors:
    return {name: p for name, p in model.named_parameters() if wanted(p)}


def _moments(optimizer: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """Adam's state of a parameter, as Adam itself would start it."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


def _stacked(parts: Sequence[Tensors]) -> Tensors:
    """A single model's tensors as they are; those of several stacked, and each model's own made a view of its part."""
    if len(parts) == 1:
        return {name: tensor.detach() for name, tensor in parts[0].items()}
    stacked = {name: torch.stack([part[name].detach() for part in parts]) for name in parts[0]}
    for index, part in enumerate(parts):
        for name, tensor in part.items():
            tensor.data = stacked[name][index]
    return stacked


def _not_scalar(tensor: Tensor) -> Tensor:
    return tensor.view(1) if tensor.dim() == 0 else tensor


def _with_scalars(tensors: Mapping[str, Tensor], scalars: Sequence[str]) -> Tensors:
    return {name: tensor[0] if name in scalars else tensor for name, tensor in tensors.items()}


def _stacked_moments(moments: Sequence[dict[str, Tensors]], key: str) -> Tensors:
    return _stacked([{name: state[key] for name, state in own.items()} for own in moments])
