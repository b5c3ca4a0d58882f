"""Data-parallel training: `torchrun --nproc-per-node N -m jawloc train`.

Every process (rank) draws the same batches and augmentations, works on its shard of each batch, and
all-reduces its gradients. So N processes do what one process does with the same batch, up to
rounding. Only the main process, rank 0, builds the cache, logs and writes files.

DistributedDataParallel would not be shorter or better: a rank that `join()`s for its empty shard
skips the optimiser's step (after 9 steps in float64, weights differ by 1e-2 from one process's; by
3e-11 here), and without `join()` the stages need a wrapper as long as `all_reduce_gradients`, which
takes 1 to 3 % of a step (2 processes on a CPU).
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from jawloc.errors import InputError, TrainingError

TIMEOUT = timedelta(days=1)  # the other ranks wait while the main process fills the cache
# Gloo's messages when a process has ended
CONNECTION_LOST = re.compile("connection (closed by peer|reset by peer|was closed)", re.IGNORECASE)


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process logs and writes files."""
        return self.rank == 0

    def shard(self, batch_size: int) -> slice:
        """Return this process's shard of a batch; it may be empty."""
        per_process = -(-batch_size // self.world_size)
        return slice(self.rank * per_process, (self.rank + 1) * per_process)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.world_size == 1:
            return
        every = list(parameters)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in every]
        bucket = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(bucket)
        for parameter, part in zip(every, bucket.split([p.numel() for p in every]), strict=True):
            parameter.grad = part.view_as(parameter)

    def average_statistics(self, *networks: nn.Module) -> None:
        """Replace BatchNorm's running statistics by their mean over the processes."""
        if self.world_size == 1:
            return
        for buffer in (buffer for network in networks for buffer in network.buffers()):
            if buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= self.world_size

    def all_gather(self, items: Sequence[Any]) -> list[Any]:
        """Return every process's items, in the order of the ranks."""
        if self.world_size == 1:
            return list(items)
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the body in the main process, then in the others."""
        if self.world_size > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.world_size > 1 and self.is_main:
            distributed.barrier()


SINGLE_PROCESS = Processes()


@contextmanager
def distributed_training() -> Iterator[Processes]:
    """Join the process group that torchrun started; without torchrun, train in a single process.

    Raises InputError for more processes than the machine has GPUs. If a process ends early, which
    reports why itself, the main process raises TrainingError and the others SystemExit.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield SINGLE_PROCESS
        return
    _init_process_group(world_size)
    processes = Processes(distributed.get_rank(), world_size)
    try:
        yield processes
        distributed.barrier()  # all end together
        atexit.register(_end_at_once)
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not CONNECTION_LOST.search(str(error)):
            raise
        if not processes.is_main:
            raise SystemExit(1) from None
        raise TrainingError(
            "another of torchrun's processes ended, and training together needs all of them; with "
            f"--debug each says why ({str(error).strip().splitlines()[0]})"
        ) from error
    finally:
        distributed.destroy_process_group()


def _init_process_group(world_size: int) -> None:
    gpus = torch.cuda.device_count()
    if gpus:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        if local > gpus:
            raise InputError(
                f"torchrun --nproc-per-node: at most one process for each of this machine's {gpus} "
                f"GPUs; received {local} (CUDA_VISIBLE_DEVICES= trains on the CPU)"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)


def _end_at_once() -> None:
    """End a process that has done its work before Python finalises.

    Gloo's threads outlive their group, and one that frees a tensor during finalisation aborts the
    process (PyTorch 2.13, in one of three runs).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
