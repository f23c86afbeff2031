"""What every latent family offers: noise, samples and their relaxations, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from dvae.config import import_class
from dvae.errors import InputError
from dvae.latents.packing import one_hot, require_values
from dvae.noise import uniform_from

__all__ = ["Discrete", "Latent"]


class Latent:
    """D independent variables per example, given by one tensor of parameters: the base of all families.

    Shapes: ``logits`` [*, B, D] or [*, B, D, n], n numbers a variable; samples [*, B, D] or [*, B, D, C].

    A family writes what raises ``NotImplementedError`` here: how a network gives it (:meth:`shapes`), how it is sampled
    (:meth:`relaxed`, :meth:`hard`) and its facts, all as functions of ``self.logits``.

    Arguments:
        logits: the parameters, as an encoder gives them; half precision is raised to float32, in which noise still resolves.

    Raises:
        InputError: the logits have too few dimensions.
    """

    event_dim: ClassVar[int] = 1
    """How many trailing dimensions of ``logits`` belong to one example."""
    sample_dim: ClassVar[int] = 1
    """How many trailing dimensions of a sample belong to one example."""
    binary: ClassVar[bool] = False
    """Whether a code is made of bits, eight of which are stored in a byte."""
    closed_kl: ClassVar[bool] = True
    """Whether :meth:`entropy` and :meth:`kl` are known in closed form."""
    torch_class: ClassVar[type[Distribution] | None] = None
    """The class of ``torch.distributions`` whose variables are this family's; None where there is none."""
    example_scale: ClassVar[float] = 1.0
    """Standard deviation of random logits, and of the parameters of a network that gives them, in :meth:`example` problems."""

    def __init__(self, logits: Tensor) -> None:
        if logits.dim() < self.event_dim:
            raise InputError(
                f"logits must be [{'*, B, D, n' if self.event_dim > 1 else '*, B, D'}], got shape {tuple(logits.shape)}"
            )
        self.logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def __repr__(self) -> str:
        return f"{type(self).__name__}(logits: {tuple(self.logits.shape)})"

    @classmethod
    def from_torch(cls, q: Any) -> Latent:
        """The same distribution, with its graph, from one of :attr:`torch_class`; see :func:`dvae.latents.of`."""
        return cls(q.logits)

    # How a network gives and takes it; a model asks its :class:`Spec`.

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of one example's logits and of its sample, from the numbers that a user gives."""
        raise NotImplementedError(f"{cls.__name__} must define shapes(num_latents, num_classes)")

    @classmethod
    def flat(cls, sample: Tensor) -> Tensor:
        """A sample's (or relaxed sample's) trailing dimensions as one, [*, B, F]."""
        return sample if cls.sample_dim == 1 else sample.flatten(-cls.sample_dim)

    @classmethod
    def features(cls, sample: Tensor) -> Tensor:
        """The sample as a network sees it, flat, [*, B, F]."""
        return cls.flat(sample)

    @classmethod
    def code(cls, sample: Tensor) -> Tensor:
        """The sample as it is stored, one number a variable, [*, B, D]."""
        return sample

    @classmethod
    def require_code(cls, code: Tensor) -> None:
        """An InputError where numbers [*, D] are no sample of a family whose values cannot be counted: not finite."""
        if not bool(code.isfinite().all()):
            raise InputError("codes must be finite numbers, got others among them")

    # Sampling

    @property
    def batch_shape(self) -> torch.Size:
        """[*, B]: the logits' shape without one example's part."""
        return self.logits.shape[: -self.event_dim]

    def detach(self) -> Any:
        """The same distribution, cut from the graph of its logits."""
        return type(self)(self.logits.detach())

    def noise(self, *sample_shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform noise for :meth:`relaxed`, [*sample_shape, *, B, D] (one number for each of a sample)."""
        shape = (*sample_shape, *self.mode().shape)
        return uniform_from(generator, shape, self.logits.device, self.logits.dtype)

    def sample(self, *sample_shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Hard samples, [*sample_shape, *, B, D]."""
        return self.hard(self.relaxed(self.noise(*sample_shape, generator=generator)))

    def relaxed(self, u: Tensor) -> Tensor:
        """The differentiable sample z behind the hard one, from uniform noise u."""
        raise NotImplementedError(f"{type(self).__name__} must define relaxed(u)")

    def hard(self, z: Tensor) -> Tensor:
        """The sample that z stands for, without a gradient."""
        raise NotImplementedError(f"{type(self).__name__} must define hard(z)")

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The sample that f is differentiated at: relaxed at a temperature; z itself for continuous latents."""
        return z

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the hard one, :math:`\tilde z \sim p(z | b)`, from uniform noise v; continuous b is its own."""
        return b

    # Facts

    @property
    def mean(self) -> Tensor:
        """E[b], a sample's shape."""
        raise NotImplementedError(f"{type(self).__name__} must define mean")

    def mode(self) -> Tensor:
        """The most probable sample."""
        raise NotImplementedError(f"{type(self).__name__} must define mode()")

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob(b)")

    def score(self, b: Tensor, weight: Tensor | None = None) -> Tensor:
        r""":math:`w \, \nabla_{\text{logits}} \log q(b)`, the logits' shape; ``weight`` is [*, B], 1 where it is None."""
        score = self._score(b)
        return score if weight is None else weight[(...,) + (None,) * self.event_dim] * score

    def _score(self, b: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _score(b)")

    def entropy(self) -> Tensor:
        """Entropy in nats, [*, B]."""
        raise NotImplementedError(f"{type(self).__name__} must define entropy()")

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) in nats, [*, B], in closed form."""
        raise NotImplementedError(f"{type(self).__name__} must define kl(other)")

    # Small problems for certificates

    @classmethod
    def example(cls, num_variables: int) -> Spec:
        """The spec of a problem with about ``2 ** num_variables`` states, or as few as a quadrature can take."""
        return Spec(cls, num_variables)

    @classmethod
    def extreme_logits(cls, ramp: Tensor, largest: float) -> Tensor:
        """Logits so large that a value is rarely seen, from a ramp over all of them from -1 to 1; about ``largest`` in size."""
        return largest * ramp

    def states(self) -> tuple[Tensor, Tensor]:
        """All states of one example and their probabilities, differentiable in the logits; or a quadrature's nodes and weights."""
        raise NotImplementedError(f"{type(self).__name__} must define states()")

    @property
    def num_states(self) -> int:
        """How many :meth:`states` one example has."""
        raise NotImplementedError(f"{type(self).__name__} must define num_states")


class Discrete(Latent):
    """What estimators for discrete variables need beyond :class:`Latent`: relaxations, enumeration and neighbours."""

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The relaxed sample at a temperature, in the convex hull of the hard ones."""
        raise NotImplementedError(f"{type(self).__name__} must define soft(z, temperature)")

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the hard one, :math:`\tilde z \sim p(z | b)`, from uniform noise v."""
        raise NotImplementedError(f"{type(self).__name__} must define conditional(b, v)")

    def path(self, z: Tensor, v: Tensor) -> Tensor:
        r""":math:`(\partial z / \partial l - \partial \tilde z / \partial l)^\top v` where z~ comes from z's own noise, z~ = z."""
        raise NotImplementedError(f"{type(self).__name__} must define path(z, v)")

    def mean_gradient(self, v: Tensor, probs: Tensor | None = None) -> Tensor:
        r""":math:`(\partial E[b] / \partial \text{logits})^\top v`, the logits' shape, for v of a sample's shape.

        At this distribution's probabilities, or at ``probs``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define mean_gradient(v)")

    @property
    def probs(self) -> Tensor:
        """The probabilities, a sample's shape; also E[b]."""
        raise NotImplementedError(f"{type(self).__name__} must define probs")

    @property
    def mean(self) -> Tensor:
        return self.probs

    def enumerate(self) -> Tensor:
        """All states of one example, [num_states, *sample]."""
        raise NotImplementedError(f"{type(self).__name__} must define enumerate()")

    def states(self) -> tuple[Tensor, Tensor]:
        states = self.enumerate()
        return states, self.log_prob(states).exp()

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Each variable's moves from b to its other values: their probabilities, and :math:`v \cdot \text{displacement}`.

        Both [*, B, D, n]; v is of a sample's shape. A move from b_i to c has probability q(b_i = c).
        """
        raise NotImplementedError(f"{type(self).__name__} must define moves(b, v)")

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        """The displacements of :meth:`moves`, weighted with [*, B, D, n] and added up for each variable; a sample's shape."""
        raise NotImplementedError(f"{type(self).__name__} must define moved(b, weight)")


@dataclass(frozen=True)
class Spec:
    """D variables of one family: all that a model needs to know of its latents.

    Called with what a network gave, it returns the distribution.

    Arguments:
        family: a class derived from :class:`Latent`.
        num_variables: D.
        num_classes: C of categorical variables; None for the other families.
        grid: (H', W') where the variables are on a grid, equally many at each place, place by place; None where they are not.

    Raises:
        InputError: the numbers do not fit the family or each other.

    Example:
        >>> latent = dvae.latents.Spec(dvae.latents.Categorical, 3, 10)
        >>> latent(torch.zeros(5, 30)), latent.num_features
        (Categorical(logits: (5, 3, 10)), 30)
    """

    family: type[Latent]
    num_variables: int
    num_classes: int | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_variables < 1:
            raise InputError(f"num_latents must be at least 1, got {self.num_variables}")
        if self.grid is not None and self.num_variables % self.num_places:
            raise InputError(
                f"num_latents must be a multiple of {self.num_places}, for the code is on a grid of "
                f"{self.grid[0]} x {self.grid[1]} places, got {self.num_variables}"
            )
        logits_shape, sample_shape = self.family.shapes(self.num_variables, self.num_classes)
        # Computed once: a training step asks for them.
        object.__setattr__(self, "logits_shape", logits_shape)
        object.__setattr__(self, "sample_shape", sample_shape)

    logits_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of one example's logits."""
    sample_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of one example's sample."""

    @classmethod
    def of(cls, latent: str | type[Latent], num_latents: int, num_classes: int | None = None) -> Spec:
        """From what a user gives: a family's class, its name or its import path.

        Raises:
            InputError: there is no such family, or the numbers do not fit it.
        """
        if isinstance(latent, str) and latent:
            latent = import_class(latent if "." in latent else f"{__package__}.{latent}", Latent, "latent")
        if not (isinstance(latent, type) and issubclass(latent, Latent)):
            raise InputError(f"latent must be a class of dvae.latents, its name or an import path, got {latent!r}")
        return cls(latent, num_latents, num_classes)

    def __call__(self, flat: Tensor) -> Latent:
        """The distribution whose logits a network gave as one flat dimension, [*, B, num_logits]."""
        return self.family(flat if len(self.logits_shape) == 1 else flat.unflatten(-1, self.logits_shape))

    @property
    def num_logits(self) -> int:
        """Numbers that a network gives for one example."""
        return math.prod(self.logits_shape)

    @property
    def num_features(self) -> int:
        """Numbers of one example's sample."""
        return math.prod(self.sample_shape)

    @property
    def num_places(self) -> int:
        """Places of the grid; 1 where there is none."""
        return 1 if self.grid is None else math.prod(self.grid)

    @property
    def num_per_place(self) -> int:
        """Variables at each place."""
        return self.num_variables // self.num_places

    @property
    def place_shape(self) -> tuple[int, ...]:
        """Of the part of a sample that is at one place."""
        return (self.num_per_place, *self.sample_shape[1:])

    @property
    def num_per_symbol(self) -> int:
        """Variables that one integer stands for: those of a place of the grid, or one."""
        return 1 if self.grid is None else self.num_per_place

    def on(self, grid: tuple[int, int]) -> Spec:
        """The latents of another grid, with as many at each place."""
        return replace(self, num_variables=self.num_per_place * math.prod(grid), grid=grid)

    @property
    def num_values(self) -> int | None:
        """How many values a variable has; None where they cannot be counted."""
        return 2 if self.family.binary else self.num_classes

    def flat(self, sample: Tensor) -> Tensor:
        """See :meth:`Latent.flat`."""
        return self.family.flat(sample)

    def features(self, sample: Tensor) -> Tensor:
        """See :meth:`Latent.features`."""
        return self.family.features(sample)

    def code(self, sample: Tensor) -> Tensor:
        """See :meth:`Latent.code`."""
        return self.family.code(sample)

    def from_code(self, code: Tensor) -> Tensor:
        """The sample that :meth:`code` gave, float: [*, D] of bits or classes to [*, D] or one-hot [*, D, C].

        Raises:
            InputError: a number is none that :meth:`code` gives.
        """
        if self.num_values is None:
            self.family.require_code(code)
        elif self.num_classes is None:
            require_values(code, self.num_values, "codes")
        return code.float() if self.num_classes is None else one_hot(code, self.num_classes)


def open_interval(u: Tensor) -> Tensor:
    """The same u, but within (0, 1), whose ends have infinite logits."""
    # torch.rand can return 0; 1 - eps/2 is the largest number below 1.
    info = torch.finfo(u.dtype)
    return u.clamp(info.tiny, 1 - info.eps / 2)


def digits(base: int, length: int, device: torch.device) -> Tensor:
    """All numbers of so many digits, [base^length, length]."""
    place = base ** torch.arange(length - 1, -1, -1, device=device)
    return torch.arange(base**length, device=device)[:, None] // place % base


def exponential(u: Tensor) -> Tensor:
    """-log(u), a standard exponential variable: e^-Gumbel."""
    return -torch.log(open_interval(u))
