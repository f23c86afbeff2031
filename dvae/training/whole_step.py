"""A whole training step as one compiled function: losses, gradients, clipping and Adam, of one model or of several at once.

Written with ``torch.func``, so that the one graph that ``torch.compile`` sees holds everything between a batch and the next
parameters, and ``torch.vmap`` makes it the step of many models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dvae.functional import caller
from dvae.training.adam import NUM_SETTINGS, Moved, bounds, moments_of, moved, settings
from dvae.training.compilation import FAILURES, NotCompilable, Replayed, compiled, warn_not_compiled
from dvae.training.step import step_loss

if TYPE_CHECKING:
    from dvae.training.module import DiscreteVAE

__all__ = ["WholeStep"]

Tensors = dict[str, Tensor]


class WholeStep:
    """The training step of one model, or of R models of one architecture; it changes parameters, buffers and moments in place.

    A step whose loss is not finite changes nothing, and neither do those after it: :attr:`failed` says so, without a look at the
    device in every step. After a block of steps, call :meth:`end_block`. If the first step cannot be compiled, its call raises one
    of :data:`FAILURES` and has changed nothing; if a later one cannot, a warning says so, and steps run as they are from there on.

    Arguments:
        models: R of them.
        optimizer: Adam or AdamW over the parameters of all of them; its settings may change between steps.
        x: a batch of one model, [B, num_pixels], to learn the metrics' names from.
        batch_size: the B of nearly all batches. One of another size, such as the last of an epoch, is too rare to compile code
            for, and runs as it is. With None there is code for every size.
        compile: whether the step is compiled.
        stacked: whether parameters, buffers and moments become views of stacked tensors, with R in front; by default where R > 1.
            One model alone then computes, to the last bit, what it does beside others.

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
        optimizer: torch.optim.Optimizer,
        x: Tensor,
        batch_size: int | None = None,
        *,
        compile: bool = True,
        stacked: bool | None = None,
    ) -> None:
        template, several = models[0], len(models) > 1 if stacked is None else stacked
        self.optimizer = optimizer
        self.names = _metric_names(template, x)
        group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        trained = [_named(model, lambda p: p.requires_grad and id(p) in group_of) for model in models]
        fixed = [_named(model, lambda p: not (p.requires_grad and id(p) in group_of)) for model in models]
        moments = [{name: moments_of(optimizer, p) for name, p in own.items()} for own in trained]
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
        self._theta_changes: list[bool] = []
        self._shape: torch.Size | None = None

        self._state = {
            "parameters": _stacked(trained, several),
            "fixed": _stacked(fixed, several),
            "buffers": _stacked([dict(model.named_buffers()) for model in models], several),
            "exp_avg": _stacked_moments(moments, "exp_avg", several),
            "exp_avg_sq": _stacked_moments(moments, "exp_avg_sq", several),
        }
        shape, device = (len(models),) if several else (), template.mean.device
        self.tally = torch.zeros(*shape, len(self.names), dtype=template.mean.dtype, device=device)
        self.last = torch.zeros_like(self.tally)
        self.steps = torch.zeros(shape, dtype=torch.int64, device=device)
        self.failed = torch.zeros(shape, dtype=torch.bool, device=device)
        self.loss = torch.zeros(shape, dtype=template.mean.dtype, device=device)
        self._records = {name: _not_scalar(getattr(self, name)) for name in ("tally", "last", "steps", "failed", "loss")}
        self._settings = torch.zeros(*shape, len(position), NUM_SETTINGS, dtype=template.mean.dtype, device=device)
        # On a CPU the same memory, so that nothing is to be copied; NumPy has no bfloat16.
        self._in_place = device.type == "cpu" and self._settings.dtype != torch.bfloat16
        table = self._settings if self._in_place else torch.zeros_like(self._settings, dtype=torch.float64, device="cpu")
        self._table: Any = table.view(len(models), len(position), NUM_SETTINGS).numpy()
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

        self._plain, self._compiled = step, compiled(step) if compile else None
        self._unguarded: Callable[..., Any] | None = None
        launch = self._launch if compile else step
        self._common = Replayed(launch) if compile and device.type == "cuda" else launch
        self._batch_size = batch_size
        self._is_first = True
        self._kept = (self._state, self._records, self._settings, streams, self._clock)

    def __call__(self, x: Tensor, iteration: int, change_theta: bool = True) -> None:
        """One step.

        Arguments:
            x: a batch, [B, num_pixels]; of several models, [R, B, num_pixels].
            iteration: from 0 on; the step's noise is that of this iteration.
            change_theta: whether theta is to change, or phi alone.
        """
        self._theta_changes.append(change_theta)
        self._set(change_theta)
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
        if self._unguarded is not None and shape == self._shape:
            self._unguarded(*kept_and_batch)
            return
        assert self._compiled is not None
        self._compiled(*kept_and_batch)
        self._shape, self._unguarded = shape, self._compiled.unguarded()

    def end_block(self) -> list[int]:
        """Tell the optimizer how many steps were done; the next step will look whether anything has changed meanwhile.

        Returns:
            of each model, how many steps of this block were done: all, unless one failed.
        """
        steps = self.steps.reshape(-1).tolist()
        done = [after - before for after, (before, _) in zip(steps, self._before, strict=True)]
        for index, own in enumerate(self._counters):
            before, counts = self._before[index]
            changes = self._theta_changes[: steps[index] - before]
            for group, counters in enumerate(own):
                self._counts[index][group] = counts[group] + (sum(changes) if self._is_theta[group] else len(changes))
                for counter in counters:
                    counter.fill_(self._counts[index][group])
            self._before[index] = (steps[index], list(self._counts[index]))
        self._theta_changes, self._unguarded = [], None
        return done

    def _set(self, change_theta: bool) -> None:
        """What an update needs to know of each group."""
        for model, (own, counts) in enumerate(zip(self._groups, self._counts, strict=True)):
            for group, index in enumerate(own):
                changes = change_theta or not self._is_theta[group]
                counts[group] += changes
                self._table[model, group] = settings(self.optimizer.param_groups[index], max(1, counts[group]), changes)
        if not self._in_place:
            new = torch.from_numpy(self._table).view(self._settings.shape)
            # From pinned memory the copy to a GPU does not wait for what the GPU still has to do.
            self._settings.copy_(new.pin_memory() if self._settings.is_cuda else new, non_blocking=True)


def _one_step(model: DiscreteVAE, names: Sequence[str], group: dict[str, int], adam: Any) -> Callable[..., Any]:
    """A pure function from state, settings, where the noise comes from, and batch to the next state and records."""
    clip, eps = model.gradient_clip_norm, adam["eps"]

    def measured(model: DiscreteVAE, stream: Tensor, clock: Tensor, x: Tensor) -> Any:
        output = step_loss(model, x, model.training_noise(x.shape[0], stream, clock))
        metrics = torch.stack([output.metrics[name].to(model.mean.dtype) for name in names])
        return output.loss, (output.loss.detach(), metrics, dict(model.named_buffers()))

    measure = caller(model, measured)

    def step(state: dict[str, Any], settings: Tensor, stream: Tensor, clock: Tensor, x: Tensor) -> Any:
        fixed = {**state["buffers"], **state["fixed"]}

        def loss(parameters: Tensors) -> Any:
            return measure({**parameters, **fixed}, stream, clock, x)

        gradients, (value, metrics, buffers) = torch.func.grad(loss, has_aux=True)(state["parameters"])
        keep = state["failed"] | ~torch.isfinite(value)
        bound = None if clip is None else bounds(gradients, group, clip)
        new: dict[str, Tensors] = {key: {} for key in Moved._fields}
        for name, gradient in gradients.items():
            old = Moved(*(state[key][name] for key in Moved._fields))
            gradient = gradient if bound is None else gradient * bound[group[name]]
            for key, tensor in moved(old, gradient, settings[group[name]], keep, eps)._asdict().items():
                new[key][name] = tensor
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


def _metric_names(model: DiscreteVAE, x: Tensor) -> list[str]:
    """What a step measures, found out by doing one that leaves no trace."""

    def names(model: DiscreteVAE, x: Tensor) -> list[str]:
        start = torch.zeros((), dtype=torch.int64, device=x.device)
        return list(step_loss(model, x, model.training_noise(len(x), model.noise_stream(0), start)).metrics)

    found: list[str] = []
    model.clock_was_read = False
    try:
        with torch.no_grad():
            found = caller(model, names)({name: buffer.clone() for name, buffer in model.named_buffers()}, x[:1])
    except RuntimeError:  # a replica has no trainer
        if not model.clock_was_read:
            raise
    if model.clock_was_read:
        raise NotCompilable(
            "it looks at the iteration or the trainer, for whose every change it would be compiled anew; a setting that changes "
            "can be a buffer, which a callback sets"
        )
    return found


def _named(model: DiscreteVAE, wanted: Callable[[Tensor], bool]) -> Tensors:
    return {name: p for name, p in model.named_parameters() if wanted(p)}


def _stacked(parts: Sequence[Tensors], several: bool) -> Tensors:
    """A single model's tensors as they are; those of several stacked, and each model's own made a view of its part."""
    if not several:
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


def _stacked_moments(moments: Sequence[dict[str, Tensors]], key: str, several: bool) -> Tensors:
    return _stacked([{name: state[key] for name, state in own.items()} for own in moments], several)
