"""Batches of a tensor or of a store, in an order that is a function of seed and epoch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dvae.data.arrays import AUGMENT, NOISE, ORDER, bits_of, check_count, check_seed
from dvae.data.stores import Store, TensorStore
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["TensorLoader"]


class TensorLoader:
    """Cuts batches from one tensor on the tensor's own device, or reads them from a store.

    The order of epoch e, and the noise of its batch k, depend on (seed, e, k) alone. Iterating again moves on to the next epoch.
    Under several processes batch k of all ranks together is one batch of ``batch_size * world_size`` of the one order, and all
    ranks have equally many batches: the order is wrapped around to fill the last one up, or with ``drop_last`` cut short.
    A run that stops anywhere resumes with the very batches that were to come (``state_dict``, which Lightning saves).

    Arguments:
        data: numbers [N, D], or a :class:`dvae.data.Store` of these.
        batch_size: examples in a batch, on each rank.
        shuffle: a new order in every epoch; the tensor's order otherwise.
        drop_last: leave out a last batch that is not full.
        dynamic: yield binary draws with the data as probabilities, fresh in every epoch.
        augment: let the store change examples at random, afresh in every epoch, where it does so.
        seed: of order and draws, not negative. Several seeds give as many batches at once, each in its own order.
        rank: which share of the data is cut, 0 <= rank < world_size.
        world_size: number of shares.
        workers: threads that read batches ahead, which changes none; for stores that take time to read.

    Attributes:
        epoch_batches: after how many batches an epoch is over; all of them, unless set to fewer.

    Yields:
        float32 [B, D], a tensor of its own; [R, B, D] for R seeds.

    Raises:
        InputError: an argument is out of its range, or there is not one batch.
    """

    # Lightning looks for it wherever it finds a sampler.
    batch_sampler = None

    def __init__(
        self,
        data: Tensor | Store,
        *,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        dynamic: bool = False,
        augment: bool = False,
        seed: int | Sequence[int] = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        if isinstance(data, Tensor) and data.ndim != 2:
            raise InputError(f"data must be [N, D] with N >= 1, got {list(data.shape)}")
        self.data = TensorStore(data) if isinstance(data, Tensor) else data
        if len(data) == 0:
            raise InputError(f"data must be [N, D] with N >= 1, got {[0, *self.data.shape]}")
        check_count("batch_size", batch_size)
        check_count("world_size", world_size)
        for one in seed if isinstance(seed, Sequence) else [seed]:
            check_seed("seed", one)
        if not 0 <= rank < world_size:
            raise InputError(f"rank must lie in [0, world_size), got rank {rank} of {world_size}")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.dynamic = dynamic
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.augment = augment
        self.workers = workers
        self._epoch = 0
        self._batch = 0
        self._loaded = False
        self.epoch_batches = len(self)
        if self.epoch_batches == 0:
            raise InputError(f"batch_size must be at most {self._share} with drop_last, the examples of one rank, got {batch_size}")

    @property
    def _share(self) -> int:
        examples = len(self.data)
        return examples // self.world_size if self.drop_last else math.ceil(examples / self.world_size)

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._share // self.batch_size if self.drop_last else math.ceil(self._share / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: nothing here runs before the first batch is asked for, because Lightning makes the iterator first, and
        # sets the epoch afterwards.
        if self._batch >= self.epoch_batches or (self._batch > 0 and not self._loaded):
            self._epoch, self._batch = self._epoch + 1, 0
        epoch, start = self._epoch, self._batch
        orders = torch.stack([self._order(seed, epoch) for seed in self._seeds])
        batches = orders.split(self.batch_size, dim=1)[: min(self.epoch_batches, len(self))]
        for index, batch in enumerate(self._read(batches[start:], epoch, start), start):
            # Lightning does not fetch ahead of a loader with a length: what it saves during a step must count the step's batch.
            self._batch = index + 1
            yield batch if self.several else batch[0]

    def _read(self, batches: Sequence[Tensor], epoch: int, start: int) -> Iterator[Tensor]:
        """The batches [R, B, D] at these places, read ahead by threads where there are some."""
        if not self.workers:
            yield from (self._batch_of(chosen, epoch, index) for index, chosen in enumerate(batches, start))
            return
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for index, chosen in enumerate(batches, start):
                    waiting.append(pool.submit(self._batch_of, chosen, epoch, index))
                    if len(waiting) > 2 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _batch_of(self, chosen: Tensor, epoch: int, index: int) -> Tensor:
        """The batch [R, B, D] at these places [R, B]."""
        if self.augment and self.data.random:
            seeds = [mixed_seed(seed, AUGMENT, epoch, index, self.rank) for seed in self._seeds]
            parts = [self.data.take(own, torch.Generator().manual_seed(seed)) for own, seed in zip(chosen, seeds, strict=True)]
            batch = torch.stack(parts)
        else:
            batch = self.data.take(chosen.flatten()).view(*chosen.shape, -1)
        if self.dynamic:
            generator = torch.Generator()
            seeds = [mixed_seed(seed, NOISE, epoch, index, self.rank) for seed in self._seeds]
            noise = torch.stack([torch.rand(batch.shape[1:], generator=generator.manual_seed(seed)) for seed in seeds])
            return bits_of(batch.float(), noise.to(batch.device))
        return batch.float()

    @property
    def several(self) -> bool:
        """Whether there are several seeds, and so several batches at once."""
        return isinstance(self.seed, Sequence)

    @property
    def _seeds(self) -> Sequence[int]:
        return self.seed if isinstance(self.seed, Sequence) else [self.seed]

    def _order(self, seed: int, epoch: int) -> Tensor:
        examples, total = len(self.data), self._share * self.world_size
        if self.shuffle:
            # On the CPU, so that every device sees the same order.
            generator = torch.Generator().manual_seed(mixed_seed(seed, ORDER, epoch))
            order = torch.randperm(examples, generator=generator)
        else:
            order = torch.arange(examples)
        order = order.repeat(math.ceil(total / examples))[:total]
        return order[self.rank :: self.world_size].to(self.data.device)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch: the next iteration is that one."""
        self._epoch, self._batch, self._loaded = epoch, 0, False

    @property
    def sampler(self) -> _Announced:
        """What Lightning announces the epoch to."""
        return _Announced(self)

    def state_dict(self) -> dict[str, int]:
        """The position, the same on every rank: the epoch, and how many of its batches have been handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go to a position that ``state_dict`` gave; the next iteration yields the rest of that epoch, if there is any.

        From here on an iteration that is broken off is taken up by the next one.

        Raises:
            InputError: it holds no position within an epoch of this loader.
        """
        epoch, batch = state_dict.get("epoch"), state_dict.get("batch")
        if not (isinstance(epoch, int) and isinstance(batch, int) and epoch >= 0 and 0 <= batch <= len(self)):
            raise InputError(
                f"state_dict must hold an epoch and a batch of at most {len(self)}, the batches in an epoch, got {dict(state_dict)}"
            )
        self._epoch, self._batch, self._loaded = epoch, batch, True


class _Announced:
    """Passes an announced epoch on to a loader, unless that follows a position it has loaded.

    The position knows better: resumed from the end of an epoch with ``max_steps``, Lightning (2.6) first runs an epoch of no batch
    or of one, counts it, and announces the next. When it loads no position, as with ``max_epochs``, its announcement is right.
    """

    def __init__(self, loader: TensorLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        if not self._loader._loaded:
            self._loader.set_epoch(epoch)
