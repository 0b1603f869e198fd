"""A model and its optimisers, as torch.distributed.checkpoint saves and loads them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from spgrad._arguments import refuse_others_than
from spgrad.distributed._parts import is_part, mark_alike, need_checkpoints


class TrainingState:
    """A model with sharded parameters and its optimisers, for ``torch.distributed.checkpoint``.

    >>> import tempfile, torch, torch.distributed.checkpoint as dcp, spgrad
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(3).to_sparse_csr())
    >>> model = spgrad.distributed.ShardedValues(A, torch.ones(3))
    >>> state = spgrad.distributed.TrainingState(model, torch.optim.Adam(model.parameters()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = dcp.save({"A": A, "training": state}, checkpoint_id=folder)
    ...     with torch.no_grad():
    ...         _ = model.values.zero_()
    ...     dcp.load({"training": state}, checkpoint_id=folder)
    >>> model.values
    Parameter containing:
    tensor([1., 1., 1.], requires_grad=True)
    >>> torch.distributed.destroy_process_group()

    Parameters of :class:`ShardedValues` and :class:`SparseLinear`, and what optimisers keep for
    each of their numbers, are saved as parts of tensors of all ranks. Any number of ranks can load
    them, each its own part. All else is what PyTorch's ``get_state_dict`` gives, with the names
    that the model has without ``DistributedDataParallel``.

    Needs PyTorch 2.15 or later.

    Args:
        model: The model, wrapped or not.
        optimizers: Its optimisers, or none.

    Raises:
        ValueError: ``model`` is no module, or an optimiser is none.
        RuntimeError: PyTorch is older. When saved or loaded: an optimiser keeps something for a
            sharded parameter that is neither one number nor of the parameter's shape.

    """

    def __init__(self, model: nn.Module, *optimizers: Optimizer) -> None:
        """Remember whose state it is."""
        refuse_others_than(nn.Module, "a torch.nn.Module", "model", model)
        for optimizer in optimizers:
            refuse_others_than(Optimizer, "torch.optim.Optimizer", "optimizers", optimizer)
        need_checkpoints()
        self._model, self._optimizers = model, optimizers

    def state_dict(self) -> dict[str, Any]:
        """Give the state; tensors share the memory of the model and of the optimisers.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> model = spgrad.distributed.ShardedValues(A, torch.ones(2))
        >>> state = spgrad.distributed.TrainingState(model, torch.optim.Adam(model.parameters()))
        >>> state.state_dict()["model"]["values"]
        tensor([1., 1.])

        Returns:
            The states of the model and of the optimisers, by the names of the parameters. PyTorch
            lets optimisers without a state make one, by a step of length 0.

        Raises:
            RuntimeError: An optimiser keeps something of another shape.

        """
        states: tuple[Any, Any] = get_state_dict(self._model, self._optimizers)
        of_model, of_optimizers = states
        for name, parameter in of_model.items():
            if is_part(parameter):
                _mark_state(name, parameter, of_optimizers.get("state", {}).get(name, {}))
        return {"model": of_model, "optimizers": of_optimizers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state over that has been loaded.

        >>> import torch, spgrad
        >>> A = spgrad.distributed.RowSharded.from_rank(torch.eye(2).to_sparse_csr())
        >>> model = spgrad.distributed.ShardedValues(A, torch.ones(2))
        >>> state = spgrad.distributed.TrainingState(model, torch.optim.Adam(model.parameters()))
        >>> state.load_state_dict(state.state_dict())

        Args:
            state_dict: As :meth:`state_dict` gives it.

        Returns:
            Nothing.

        Raises:
            RuntimeError: Names or shapes are others.

        """
        set_state_dict(
            self._model,
            self._optimizers,
            model_state_dict=state_dict["model"],
            optim_state_dict=state_dict["optimizers"],
        )


def _mark_state(name: str, parameter: Tensor, state: dict[str, Any]) -> None:
    for key, kept in state.items():
        if not isinstance(kept, Tensor) or kept.dim() == 0:
            continue  # such as the number of steps
        if kept.shape != parameter.shape:
            message = (
                "what an optimiser keeps for a sharded parameter must be one number or have its "
                f"shape, {tuple(parameter.shape)}, but received {key} of {name} with shape "
                f"{tuple(kept.shape)}"
            )
            raise RuntimeError(message)
        mark_alike(kept, parameter)
