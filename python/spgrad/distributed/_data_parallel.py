"""PyTorch's data parallelism for the parameters that ranks share, beside those that they do not."""

# No annotations from the future: DistributedDataParallel looks at those of the hook.
from collections.abc import Iterator
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed import ProcessGroup
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from spgrad._arguments import refuse_others_than
from spgrad.distributed._modules import ModuleOfRanks


def _sharded_by_name(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    refuse_others_than(nn.Module, "a torch.nn.Module", "model", model)
    for prefix, module in model.named_modules():
        if isinstance(module, ModuleOfRanks):
            for name in module.parts():
                yield f"{prefix}.{name}", module.get_parameter(name)


def sharded_parameters(model: nn.Module) -> set[nn.Parameter]:
    """Find the parameters of a model that are parts of those that all ranks have together.

    >>> import torch, spgrad
    >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
    >>> edges = spgrad.distributed.ShardedValues(A, torch.ones(2))
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), edges)
    >>> spgrad.distributed.sharded_parameters(model) == {edges.values}
    True

    FSDP leaves them alone where it is told to:
    ``fully_shard(model, mesh=mesh, ignored_params=sharded_parameters(model))``. It averages the
    gradients of the others over ranks. After ``set_gradient_divide_factor(1.0)`` and
    ``set_force_sum_reduction_for_comms(True)`` of each module that it wrapped, it adds them up, as
    those of sharded parameters are.

    Args:
        model: A model with modules of ``spgrad.distributed``.

    Returns:
        The parameters of these modules.

    Raises:
        ValueError: ``model`` is no module.

    """
    return {parameter for _, parameter in _sharded_by_name(model)}


def data_parallel(model: nn.Module, **options: Any) -> DistributedDataParallel:
    """Wrap a model in ``DistributedDataParallel``, which then leaves sharded parameters alone.

    >>> import torch, spgrad
    >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
    >>> edges = spgrad.distributed.ShardedValues(A, torch.ones(2))
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), edges)
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> parallel = spgrad.distributed.data_parallel(model)
    >>> parallel(torch.ones(2, 4)).sum().backward()
    >>> torch.distributed.destroy_process_group()

    Gradients of the parameters that ranks share are added up, not averaged: all ranks together
    minimise the sum of their losses, as the gradients of sharded parameters have it.

    Args:
        model: A model with modules of ``spgrad.distributed``, and parameters of which all ranks
            have copies.
        options: Those of ``DistributedDataParallel``.

    Returns:
        The wrapped model.

    Raises:
        ValueError: ``model`` is no module.
        RuntimeError: As ``DistributedDataParallel``, which needs a parameter that ranks share.

    """
    # Of parameters of the model itself, it asks for the name with and without the point.
    names = {
        alike for name, _ in _sharded_by_name(model) for alike in (name, name.removeprefix("."))
    }
    names |= set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)  # noqa: SLF001
    parallel = DistributedDataParallel(model, **options)
    parallel.register_comm_hook(None, _add_up)
    return parallel


def _add_up(group: ProcessGroup | None, bucket: GradBucket) -> Future[Tensor]:
    work = torch.distributed.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None  # noqa: S101 - for mypy
    future: Future[list[Tensor]] = work.get_future()
    return future.then(lambda done: done.value()[0])
