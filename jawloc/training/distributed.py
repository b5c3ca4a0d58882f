"""Several processes that train one network together: `torchrun --nproc-per-node N -m jawloc train`.

Every process draws the same batches and the same changes, works on its share of each batch, and
adds its gradients to the others'. So N processes do what one process does with the same batch,
up to rounding. The first process leads: it alone builds the cache, logs, and writes files.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from jawloc.errors import InputError, TrainingError

PATIENCE = timedelta(days=1)  # the others wait while the leader fills the cache


@dataclass(frozen=True)
class Processes:
    """One process's place among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Say whether this is the process that writes."""
        return self.rank == 0

    def shard(self, batch_size: int) -> slice:
        """Return which part of a batch is this process's; it may be empty."""
        per_process = -(-batch_size // self.size)
        return slice(self.rank * per_process, (self.rank + 1) * per_process)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        every = list(parameters)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in every]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        for parameter, part in zip(every, together.split([p.numel() for p in every]), strict=True):
            parameter.grad = part.view_as(parameter)

    def average_statistics(self, network: nn.Module) -> None:
        """Replace running statistics (BatchNorm's) by their mean over the processes."""
        if self.size == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= self.size

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Return every process's items, in the order of the processes."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the leader through alone; the others follow when it is done."""
        if self.size > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_main:
            distributed.barrier()


SINGLE_PROCESS = Processes()


@contextmanager
def distributed_training() -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun, be alone.

    Raises
    ------
    InputError
        More processes on this machine than it has GPUs.
    TrainingError
        In the leader, where another process ended before its time.
    SystemExit
        In the others, where one ended; that one says why.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    gpus = torch.cuda.device_count()
    if gpus:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        if here > gpus:
            raise InputError(
                f"torchrun --nproc-per-node: at most one process for each of this machine's {gpus} "
                f"GPUs; received {here} (CUDA_VISIBLE_DEVICES= trains on the CPU)"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    processes = Processes(distributed.get_rank(), size)
    try:
        yield processes
        distributed.barrier()  # all end together
        atexit.register(_end_at_once)
    except RuntimeError as error:
        if not _lost_touch(error):
            raise
        if not processes.is_main:  # the one that ended has said why
            raise SystemExit(1) from None
        raise TrainingError(
            "another of torchrun's processes ended, and training together needs all of them; with "
            f"--debug each says why ({str(error).strip().splitlines()[0]})"
        ) from error
    finally:
        distributed.destroy_process_group()


def _end_at_once() -> None:
    """End a process that has done its work before Python tidies up.

    Gloo's threads outlive their group, and one that lets go of a tensor after Python began to
    end aborts the process (PyTorch 2.13, in one of three runs).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _lost_touch(error: RuntimeError) -> bool:
    """Say whether an error is about another process that is gone."""
    signs = ("connection closed by peer", "connection reset by peer", "connection was closed")
    return isinstance(error, distributed.DistError) or any(s in str(error).lower() for s in signs)
