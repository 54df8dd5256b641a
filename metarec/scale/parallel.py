"""The same outer loop on many processes: tasks are shared out, parameters copied."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from metarec.training import T, Workers

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Processes(Workers):
    """One of P processes that train the same meta-learner on parts of its tasks.

    Each has a copy of all parameters and of the optimizer. With ``n_r`` tasks and the
    mean gradient ``g_r`` on process r, all take the step of one process that has all
    tasks::

        g = sum_r n_r g_r / sum_r n_r,

    whatever the sizes, ``n_r = 0`` included. One all-reduce of a flat buffer carries
    the gradient, the loss and the count, so a loss that is not finite stops all
    processes.

    Source
    ------
    Li et al. (2020), for PyTorch's own data parallelism.

    Built in
    --------
    scaling
    """

    def __init__(self) -> None:
        self.part = dist.get_rank(), dist.get_world_size()

    def once(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the first process; its result goes to all.

        Raises its error there and ``RuntimeError`` with the same message elsewhere, so
        that nobody waits for a process that failed.

        Parameters
        ----------
        make
            What is to be called.

        Returns
        -------
        object
            What it returned.

        Raises
        ------
        RuntimeError
            On the other processes, if the call failed on the first, with the same
            message; the first raises its own error.
        """
        try:
            result: list[Any] = [make() if self.first else None, None]
        except BaseException as error:
            result = [None, f"{type(error).__name__}: {error}"]
            raise
        finally:  # the others wait for this, whatever happens here
            dist.broadcast_object_list(result, src=0, device=torch.device("cpu"))
        if result[1] is not None:
            raise RuntimeError(f"the first process failed: {result[1]}")
        return cast(T, result[0])

    def all_reduce(
        self, parameters: Sequence[nn.Parameter], loss: float, n_tasks: int
    ) -> tuple[float, int]:
        """Put the mean gradient in place of each process's own.

        Parameters
        ----------
        parameters
            Parameters whose gradients are replaced.
        loss
            Mean loss of this part's tasks.
        n_tasks
            Number of this part's tasks.

        Returns
        -------
        tuple[float, int]
            Mean loss and number of tasks of the whole batch.
        """
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        # The loss and the count travel with the gradient: one message, one wait.
        tail = own[0].new_tensor([loss, 1.0])
        buffer = n_tasks * torch.cat([*(g.flatten() for g in own), tail])
        dist.all_reduce(buffer)
        total = round(buffer[-1].item())
        buffer /= total
        sizes = [p.numel() for p in parameters]
        for p, g in zip(parameters, buffer[:-2].split(sizes), strict=True):
            p.grad = g.view_as(p).to(p)
        return buffer[-2].item(), total


@contextmanager
def process_group() -> Iterator[Workers]:
    """Join the processes that ``torchrun`` has started; alone without it.

    In use::

        with process_group() as workers:
            batches = TaskSampler(histories, users, part=workers.part)
            meta_train(meta, batches, validate, workers=workers)

    Started by ``torchrun --nproc-per-node 2 script.py`` both processes run the whole
    script, and must draw the same meta-batches. Tensors in main memory travel by gloo,
    those of a GPU by nccl. With ``--max-restarts`` set the environment variable
    ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`` for torchrun: it may otherwise give
    restarted processes the addresses of those that are gone.

    Yields
    ------
    Workers
        The processes, to be used in a ``with`` block.

    Raises
    ------
    RuntimeError
        If only a part of what torchrun sets is set.

    Built in
    --------
    scaling
    """
    there = [name for name in _SET_BY_TORCHRUN if name in os.environ]
    if not there:
        yield Workers()
        return
    if missing := [name for name in _SET_BY_TORCHRUN if name not in there]:
        start = "start the processes by `torchrun --nproc-per-node 2 script.py`"
        other = f"other variables of torchrun are: {start}, or unset {', '.join(there)}"
        raise RuntimeError(f"{', '.join(missing)} not set, and {other}")
    both = torch.cuda.is_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()
