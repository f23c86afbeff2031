"""What a gradient estimator is: a function from an objective f and a distribution q to d E_q[f(b)] / d logits.

Shapes are written for Bernoulli latents, [*, B, D]; where another family has more dimensions, a sample or a gradient has them too.
"""

from __future__ import annotations

import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from typing_extensions import TypeVar

from dvae.config import Module, public_path
from dvae.errors import InputError
from dvae.functional import frozen, named_parameters, pull_back
from dvae.latents import Bernoulli, Latent, of
from dvae.objectives import importance_weighted_bound

__all__ = ["Draw", "Estimate", "GradientEstimator", "Objective", "value_and_derivative"]

Objective = Callable[..., Tensor]
"""``f(sample, temperature=None)``: samples [*, K, B, D] to a value per example [*, K, B]; larger is better. A temperature says that
the sample is relaxed. An f with a method ``frozen()`` says itself what it is with its parameters held fixed."""


def value_and_derivative(f: Callable[[Tensor], Tensor], sample: Tensor) -> tuple[Tensor, Tensor]:
    """f at the samples, [*, K, B], and its derivative with respect to each, the samples' shape."""
    value, back = pull_back(f, sample)
    return value, back(torch.ones_like(value))


class Estimate(NamedTuple):
    """What an estimator returns."""

    value: Tensor
    """[B], f at the hard samples, combined (averaged, unless the estimator is for the K-sample bound); differentiable in what f
    depends on (theta)."""
    grad: Tensor
    """[B, D], the estimate of d E_q[value] / d logits; differentiable in the estimator's own parameters (phi), never in theta."""

    def loss(self, logits: Tensor) -> Tensor:
        r"""A scalar whose one backward gives theta and the logits the (negative) objective's gradient, and phi the variance's.

        .. math:: \frac1B \sum_{i=1}^B \big(-\text{value}_i - g_i \cdot \text{logits}_i + |g_i|^2\big)

        with g detached in the second term.

        Arguments:
            logits: [B, D], those that the estimate was made at, with their graph; of a distribution of PyTorch's
                ``dvae.latents.of(q).logits``.
        """
        event = tuple(range(self.value.dim(), self.grad.dim()))
        surrogate = self.value + (self.grad.detach() * logits).sum(event)
        return (self.grad.square().sum(event) - surrogate).mean()


class Draw(NamedTuple):
    """The samples that an estimate is made from. K is the estimator's ``num_samples``."""

    noise: Tensor
    """[num_noise, K, B, D], uniform on (0, 1)."""
    z: Tensor
    """[K, B, D], relaxed samples, made from ``noise[0]``."""
    b: Tensor
    """[K, B, D], their hard samples."""
    value: Tensor
    """[K, B], f(b); with its graph where :meth:`GradientEstimator.draw` made it, without in :meth:`GradientEstimator.gradient`."""
    derivative: Tensor | None = None
    """[K, B, D], f'(b), where it came with the value; :meth:`GradientEstimator.derivative` asks for it."""


# Those whose parameters were asked for before they were all there. Beside the objects, so that no copy is thought to be listed.
_LISTED: weakref.WeakSet[nn.Module] = weakref.WeakSet()

Q = TypeVar("Q", bound=Latent, default=Any)
"""The latents that an estimator is for."""


class GradientEstimator(Module, Generic[Q]):
    """Base class: it draws, evaluates f with the graph to theta, and hands the subclass a frozen f for everything else.

    A subclass writes one equation, :meth:`gradient`. Its ``parameters()`` are phi, trained to minimise the gradient's variance; its
    buffers may hold running statistics, advanced in :meth:`update`, after they were read. Inside, differentiate with
    ``torch.func`` only, without branches on data, so that the same code runs eagerly, compiled and under ``torch.vmap``.

    What it says of itself stands in class attributes, which :func:`dvae.estimators.facts` tabulates and ``dvae.certify`` measures.

    Arguments:
        num_samples: K, how many samples are drawn for each example; the estimate is their mean.

    Raises:
        InputError: ``num_samples`` is less than 1.

    Example:
        >>> class Score(dvae.GradientEstimator):
        ...     def gradient(self, f, q, draw, context):
        ...         return q.score(draw.b, draw.value)
        >>> dvae.certify(Score(), num_problems=1, num_samples=4000).passed
        True
    """

    reference: str = ""
    """The paper that it is from, as in "Tucker et al. 2017"; the docstring has the whole reference."""
    unbiased: bool = True
    """Whether E[grad] = d E_q[value] / d logits exactly; ``dvae.certify`` measures it."""
    latents: tuple[type[Latent], ...] = (Bernoulli,)
    """The latent families that the equation holds for."""
    differentiates: bool = False
    """Whether the derivative of f with respect to the sample is needed; where not, f may be any Python function."""
    derivative_at_sample: bool = False
    """Whether of f, besides its value, only :meth:`derivative` is asked: it then comes with the value's own backward pass."""
    multi_sample: bool = False
    """Whether f's values are log-weights, and the objective is the K-sample bound instead of their mean."""
    num_noise: int = 1
    """How many independent uniforms each latent variable needs per sample."""
    evaluations_per_sample: int | None = 1
    """Evaluations of f per sample, the one at the hard sample included; None where it depends on the latents. ``dvae.certify``
    counts them."""

    def __init__(self, num_samples: int = 1) -> None:
        super().__init__()
        if num_samples < 1:
            raise InputError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples = num_samples
        self.is_built = False
        self._derivative_checked = False

    @property
    def num_evaluations(self) -> int | None:
        """Evaluations of f in one estimate."""
        return None if self.evaluations_per_sample is None else self.num_samples * self.evaluations_per_sample

    def gradient(self, f: Objective, q: Q, draw: Draw, context: Tensor | None) -> Tensor:
        """The estimator's equation: a gradient per sample, [K, B, D]; the estimate is its mean over K.

        Arguments:
            f: the objective on frozen theta, ``f(sample, temperature=None)``, [K, B, D] to [K, B].
            q: the latent distribution, cut from the encoder; logits [B, D] (or [K, B, D] below another stochastic layer).
            draw: noise, relaxed and hard samples, and f at the hard ones.
            context: [B, C] or [K, B, C], what is known before the sample is drawn (the input, earlier layers), or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must define gradient(self, f, q, draw, context)")

    def derivative(self, f: Objective, draw: Draw) -> Tensor:
        """f'(b), [K, B, D], at the samples drawn: as they brought it, or of an f evaluated anew."""
        return value_and_derivative(f, draw.b)[1] if draw.derivative is None else draw.derivative

    def combine(self, value: Tensor) -> Tensor:
        """The objective [B] from f at the samples [K, B]: their mean, or the K-sample bound of log-weights."""
        return importance_weighted_bound(value) if self.multi_sample else _mean(value)

    def update(self, draw: Draw) -> None:
        """Advance running statistics, which are buffers, by this draw; called in training mode, after the gradient was computed.

        Assigned anew or changed in place: the buffers that it meets are its own.
        """

    def build(self, num_latents: int, num_context: int) -> None:
        """Create the parameters whose shapes depend on the problem; called once, before the first estimate.

        Arguments:
            num_latents: size of a flat sample, D (D C for categorical latents).
            num_context: size of the context, 0 for none.
        """

    def penalty(self, num_latents: int) -> Tensor | float:
        """A regularizer on phi, added to the variance; ``num_latents`` is the number of logits of an example."""
        return 0.0

    def summary(self) -> dict[str, Tensor]:
        """Scalars worth logging, such as a learned temperature."""
        return {}

    def ensure_built(self, num_latents: int, num_context: int) -> None:
        """Call :meth:`build` if it has not been called yet: before an optimizer is made of the parameters.

        Arguments:
            num_latents, num_context: as in :meth:`build`.

        Raises:
            InputError: the parameters were listed before, as an optimizer is made, and would become more.
        """
        if not self.is_built:
            if self in _LISTED:
                self._require_nothing_missed(num_latents, num_context)
            self.build(num_latents, num_context)
            self.is_built = True

    def _require_nothing_missed(self, num_latents: int, num_context: int) -> None:
        trial = copy.deepcopy(self)
        trial.build(num_latents, num_context)
        listed = {name for name, _ in self.named_parameters()}
        missed = [name for name, _ in trial.named_parameters() if name not in listed]
        if missed:
            raise InputError(
                f"the parameters of {type(self).__name__} were listed before it was built, so that an optimizer made of them would "
                f"never train {', '.join(missed)}: make the estimator anew and call ensure_built(num_latents={num_latents}, "
                f"num_context={num_context}) on it before making the optimizer"
            )

    def forget_listing(self) -> None:
        """What was listed before it was built does not count: called where it becomes a part of what is listed anew, as a model."""
        _LISTED.discard(self)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As of every module. Lists of parameters come through here, also those of a module that the estimator is in."""
        if not self.is_built:
            _LISTED.add(self)
        return super().named_modules(memo, prefix, remove_duplicate)

    def draw(
        self,
        f: Objective,
        q: Latent | Distribution,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """The first half: noise, samples, and f at the hard ones with its graph.

        Arguments:
            f, q, noise, generator: as in :meth:`forward`.

        Raises:
            InputError: the estimator does not support q's family, or f returns another shape than [K, B].
        """
        latent: Latent = self._supported(q).detach()
        if noise is None:
            noise = latent.noise(self.num_noise, self.num_samples, generator=generator)
        z = latent.relaxed(noise[0])
        b = latent.hard(z)
        value = _floating(f(b), b.dtype)
        expected = (self.num_samples, *latent.batch_shape)
        if value.shape != expected:
            raise InputError(
                f"f must return one value per example, shape {expected}, for samples {tuple(b.shape)}; got {tuple(value.shape)}"
            )
        return Draw(noise, z, b, value)

    def estimate(self, f: Objective, q: Latent | Distribution, draw: Draw, context: Tensor | None = None) -> Tensor:
        """The second half: the gradient, of the logits' shape, and one advance of the running statistics.

        Everybody who wants a gradient comes through here: f is frozen, q and the draw are cut from the graph.

        Arguments:
            f: the objective; it is called by estimators that need it at other samples, or its derivative.
            q: the distribution that was drawn from, logits [B, D]; or [K, B, D], where each sample has its own.
            draw: noise, samples and values, from :meth:`draw` or from outside.
            context: [B, C] or [K, B, C], or None.

        Raises:
            InputError: f is a plain function of trainable parameters, or has no derivative where one is needed; the estimator does
                not support q's family; or the equation gives another shape than it should.
        """
        latent: Latent = self._supported(q).detach()
        is_users = not hasattr(f, "frozen")
        f = _frozen(f, draw.value)
        if self.differentiates and not self._derivative_checked and not torch.compiler.is_compiling():
            if is_users:
                f(draw.b)  # it says whether it is frozen; a derivative under torch.func would hide that
            self._require_derivative(f, draw.b)
        draw = draw._replace(z=draw.z.detach(), value=draw.value.detach().to(draw.z.dtype))
        grad = self.gradient(f, cast(Q, latent), draw, context)
        expected = (*draw.value.shape, *latent.logits.shape[-latent.event_dim :])
        if grad.shape != expected:
            raise InputError(
                f"{type(self).__name__}.gradient must return a gradient for each sample, shape {expected}, got {tuple(grad.shape)}"
            )
        if self.training and type(self).update is not GradientEstimator.update:
            self._own_buffers()
            self.update(draw)
        if grad.requires_grad and next(named_parameters(self), None) is None:
            grad = grad.detach()  # of the graph that a derivative was taken through, nothing is trained
        return grad if latent.logits.dim() == grad.dim() else _mean(grad)

    def given(
        self,
        q: Latent | Distribution,
        b: Tensor,
        value: Tensor,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""The gradient, of the logits' shape, where f was evaluated elsewhere and cannot be asked again: a reward, a measurement.

        The relaxed sample of control variates is drawn given the hard one, :math:`z \sim p(z | b)`: both are distributed as
        if z had been drawn first. So phi may also be trained on b that were drawn from an earlier q.

        Arguments:
            q: the distribution that b was drawn from, logits [B, D].
            b: the samples, [K, B, D], or [B, D] of an estimator with one sample.
            value: f(b), [K, B] or [B] as b.
            context: as in :meth:`estimate`.
            noise: [num_noise, K, B, D], uniform; drawn from ``generator`` where it is None.

        Raises:
            InputError: the estimator asks for f at another sample, or for its derivative; or as in :meth:`estimate`.

        Example: a bandit that tells the reward of the arm that was pulled.

            >>> q = dvae.latents.Categorical(torch.zeros(100_000, 1, 3))
            >>> arm = q.sample()
            >>> reward = q.code(arm).squeeze(-1) == 2
            >>> dvae.estimators.REINFORCE().given(q, arm, reward).mean(0).allclose(torch.tensor([-1, -1, 2]) / 9, atol=0.02)
            True
        """
        self.require_given()
        latent: Latent = self._supported(q).detach()
        value = torch.as_tensor(value)
        b, value = (b[None], value[None]) if b.dim() == latent.mode().dim() else (b, value)
        if noise is None:
            noise = latent.noise(self.num_noise, self.num_samples, generator=generator)
        if b.shape != noise.shape[1:] or value.shape != b.shape[: 1 + len(latent.batch_shape)]:
            raise InputError(
                f"b must be num_samples={self.num_samples} samples for each example as q draws them, {tuple(noise.shape[1:])}, "
                f"and value one number for each, got {tuple(b.shape)} and {tuple(value.shape)}"
            )
        self.ensure_built(latent.flat(b).shape[-1], 0 if context is None else context.shape[-1])
        value = _floating(value, b.dtype)
        draw = Draw(noise, latent.conditional(b, noise[0]), b, value)
        return self.estimate(_elsewhere, latent, draw, context)

    def require_given(self) -> None:
        """An InputError where the equation needs more of f than its value at the samples drawn; see :meth:`given`."""
        if self.differentiates or self.evaluations_per_sample != 1:
            raise InputError(_ASKS_MORE.format(type(self).__name__))

    def forward(
        self,
        f: Objective,
        q: Latent | Distribution,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Estimate:
        """Estimate d E_q[f] / d logits.

        Arguments:
            f: the objective. Trainable parameters that it uses must be its own: then f is an ``nn.Module``, which can be frozen, or
                a ``functools.partial`` of one, with arguments of the batch.
            q: the latent distribution, logits [B, D], or [D] for a single example without a dimension of its own; one of
                ``torch.distributions`` becomes that of :func:`dvae.latents.of`.
            context: [B, C], for control variates that look at the input.
            noise: [num_noise, K, B, D]; drawn from ``generator`` where it is None.

        Raises:
            InputError: f is a plain function of trainable parameters, returns another shape than [K, B], or has no derivative where
                one is needed; or the estimator does not support q's family.
        """
        q = self._supported(q)
        self.ensure_built(q.flat(q.mode()).shape[-1], 0 if context is None else context.shape[-1])
        draw = self.draw(f, q, noise=noise, generator=generator)
        return Estimate(self.combine(draw.value), self.estimate(f, q, draw, context))

    def _own_buffers(self) -> None:
        # In a function of the buffers, such as a compiled step or a chain under vmap, those at hand must not be changed in place.
        for module in self.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.clone())

    def require_support(self, latent: type[Latent]) -> None:
        """An InputError where the equation does not hold for this family of latents."""
        if not issubclass(latent, self.latents):
            supported = [family.__name__ for family in self.latents]
            given = public_path(latent) if latent.__name__ in supported else latent.__name__
            raise InputError(f"{type(self).__name__} is for {' or '.join(supported)} latents, got {given}")

    def _supported(self, q: Latent | Distribution) -> Latent:
        latent = of(q)
        self.require_support(type(latent))
        return latent

    def _require_derivative(self, f: Objective, b: Tensor) -> None:
        # Without a derivative autograd gives zeros, silently: the estimate would be biased. Asked once, at the price of one f.
        reason = "its value does not depend on the sample differentiably"
        sample = torch.full(b.shape, 0.5, dtype=b.dtype, device=b.device).requires_grad_()
        with torch.enable_grad():
            try:
                has_derivative = f(sample).requires_grad
            except (RuntimeError, TypeError) as error:
                has_derivative, reason = False, str(error).splitlines()[0]
        if not has_derivative:
            raise InputError(
                f"{type(self).__name__} needs the derivative of f, but f has none ({reason}); for such an f take REINFORCE, LOO, "
                "DisARM, or RELAX with black_box=True"
            )
        self._derivative_checked = True


def _mean(samples: Tensor) -> Tensor:
    """The mean over K; of one sample itself, without the operations there and back."""
    return samples.mean(0) if len(samples) > 1 else samples.squeeze(0)


_ASKS_MORE = (
    "{} needs f at other samples than those drawn, or its derivative, but only values from outside are given: take REINFORCE, "
    "NVIL, LOO, LAX or RELAX with black_box=True"
)


def _elsewhere(sample: Tensor, temperature: Tensor | None = None) -> Tensor:
    raise InputError(_ASKS_MORE.format("the estimator"))


def _frozen(f: Objective, value: Tensor) -> Objective:
    """f on detached theta, with an optional temperature argument."""
    if hasattr(f, "frozen"):
        return f.frozen()
    takes_temperature = _takes_temperature(f)
    if isinstance(f, nn.Module):
        f = frozen(f)
    elif isinstance(f, functools.partial) and isinstance(f.func, nn.Module):
        bound = {name: _detached(value) for name, value in f.keywords.items()}
        f = functools.partial(frozen(f.func), *map(_detached, f.args), **bound)
    elif value.requires_grad:
        raise InputError(
            "f depends on trainable parameters, so it must be an nn.Module that owns them, got a plain function, which cannot be "
            "frozen: its parameters would leak into the gradient's variance. Write class F(nn.Module) with the parameters, or the "
            "modules that hold them, as attributes (self.decoder = decoder) and your function as its forward(self, b), and pass F()"
            ", or functools.partial(F(), x=x) with what belongs to the batch"
        )

    def plain(sample: Tensor, temperature: Tensor | None = None) -> Tensor:
        value = f(sample, temperature=temperature) if takes_temperature else f(sample)
        if value.requires_grad and not sample.requires_grad:
            raise InputError(
                "f holds a tensor with a graph that is none of its parameters, so that it cannot be frozen and would leak into the "
                "gradient's variance: give it as an argument, functools.partial(F(), x=x), or compute it within f's forward"
            )
        return _floating(value, sample.dtype)

    return plain


def _floating(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A reward may be an integer."""
    return value if value.is_floating_point() else value.to(dtype)


def _detached(bound: Any) -> Any:
    """What is bound to f may have a graph to theta too, as what a batch was encoded to."""
    return bound.detach() if isinstance(bound, Tensor) else bound


def _takes_temperature(f: Callable[..., Tensor]) -> bool:
    called = f.func if isinstance(f, functools.partial) else f
    return "temperature" in inspect.signature(called.forward if isinstance(called, nn.Module) else called).parameters
