"""The linear layer with a pattern of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import integer_from, refuse_others_than_tensors
from spgrad.nn import _layer_pattern
from spgrad.nn._absent_gradient import largest_absent

if TYPE_CHECKING:
    from typing_extensions import Self

_pattern_mm = torch.ops.spgrad.pattern_mm.default

# The tensors of a pattern, in the order in which the operators take them.
_STRUCTURE = ("crow_indices", "col_indices", "column_offsets", "column_entries")
_SAVED = _STRUCTURE[:2]


class SparseLinear(nn.Module):
    """A ``torch.nn.Linear`` most of whose weights are absent: ``x @ weight.T + bias``.

    The pattern of the weights is given; the weights at its places are learned. It stays as it is
    until :meth:`change_pattern_` sets another one.

    >>> import torch, spgrad
    >>> layer = spgrad.nn.SparseLinear(784, 256, sparsity=0.9)
    >>> layer
    SparseLinear(in_features=784, out_features=256, bias=True, nnz=20070, sparsity=0.9)
    >>> layer(torch.randn(64, 784)).shape
    torch.Size([64, 256])
    >>> optimizer = torch.optim.Adam(layer.parameters())

    Attributes:
        weight: Parameter of shape ``(nnz,)``: the weights in row-major order.
        bias: Parameter of shape ``(out_features,)``, or None.
        crow_indices: Buffer of shape ``(out_features + 1,)``: where each row starts in ``weight``.
        col_indices: Buffer of shape ``(nnz,)``: the input that each weight belongs to.

    Both buffers are int32 where that suffices, and they are in the ``state_dict``. Two further
    buffers, 8 bytes for each weight, hold the transposed pattern for the backward pass; they are
    made anew when a ``state_dict`` is loaded. Do not change buffers otherwise.

    ``load_state_dict`` takes the pattern along with the weights, however many they are. States of
    spgrad's first version, where ``weight`` was called ``values``, load too. A layer made on the
    meta device gets its pattern from ``to_empty`` and ``load_state_dict``, or
    ``load_state_dict(..., assign=True)``.

    ``DistributedDataParallel`` sends the pattern of the first process to the others, in each step.
    ``broadcast_buffers=False`` saves that, but PyTorch then never sends it: make the layer from the
    same seed in all processes.

    ``torch.nn.utils.parametrizations`` take ``weight`` as it is, with one dimension:
    ``weight_norm(layer, "weight", dim=None)`` has one length for all of it, while the default,
    ``dim=0``, would have one for each single weight.

    Structured patterns are masks like any other: N of M neighbours in a row, blocks, bands,
    diagonals. They need no other layer, and get no other kernels.

    Args:
        in_features: Size of each input.
        out_features: Size of each output.
        bias: Whether to add a learned bias.
        sparsity: Share of weights that are absent, from 0 to 1; 0.9 if there is no ``mask``.
            Exactly ``round(sparsity * out_features * in_features)`` are, at random places, and the
            others are dealt out evenly: numbers of weights in two rows differ by one at most, and
            no row is empty where there are as many weights as rows.
        mask: Tensor of shape ``(out_features, in_features)``, bool or of zeros and ones: the
            places of the weights. It takes the place of ``sparsity``.
        device: Device of parameters and buffers.
        dtype: Dtype of the parameters: float32, float64, float16 or bfloat16.
        generator: Source of the random numbers, on the CPU; PyTorch's default one if None.

    Shapes:
        Input ``(*, in_features)``, output ``(*, out_features)``, with any number of leading
        dimensions, none included. The input has the dtype and device of the parameters, or any
        dtype that ``torch.autocast`` casts; the output is contiguous.

    Raises:
        ValueError: Sizes are negative or no integers, ``bias`` is no bool, ``sparsity`` is no
            number in [0, 1], ``mask`` has another shape or other numbers, or both are given. In the
            forward pass: the input has another size, or is no tensor.
        RuntimeError: In the forward pass, dtypes or devices differ or are not supported. In
            ``load_state_dict``, sizes differ, or the pattern is malformed.

    """

    # Of the state_dict: 2 has weight, crow_indices, col_indices and, where there is one, bias.
    # In 1, weight was called values.
    _version = 2

    in_features: int
    out_features: int
    weight: nn.Parameter
    bias: nn.Parameter | None
    crow_indices: Tensor
    col_indices: Tensor
    column_offsets: Tensor
    column_entries: Tensor

    def __init__(  # noqa: PLR0913 - those of torch.nn.Linear, and what makes the pattern
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,  # noqa: FBT001, FBT002 - as torch.nn.Linear has it
        *,
        sparsity: float | None = None,
        mask: Tensor | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make the pattern and draw the first values."""
        super().__init__()
        if not isinstance(bias, bool):
            message = f"bias must be True or False, but received {bias!r}; sparsity is a keyword"
            raise ValueError(message)  # noqa: TRY004 - as the products do
        self.in_features = in_features = integer_from(0, "in_features", in_features)
        self.out_features = out_features = integer_from(0, "out_features", out_features)
        device = torch.get_default_device() if device is None else torch.device(device)
        if mask is None:
            present = _layer_pattern.count_present(sparsity, out_features * in_features)
            structure = (
                _layer_pattern.without_data(out_features, in_features, present)
                if device.type == "meta"
                else _layer_pattern.drawn(out_features, in_features, present, generator)
            )
        else:
            structure = _layer_pattern.of_mask(
                _layer_pattern.checked_mask(mask, sparsity, (out_features, in_features))
            )
        for name, tensor in zip(_STRUCTURE, structure, strict=True):
            self.register_buffer(name, tensor.to(device), persistent=name in _SAVED)
        self.weight = nn.Parameter(torch.empty(self.nnz, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(generator)

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, *, sparsity: float | None = None, mask: Tensor | None = None
    ) -> Self:
        """Prune a ``torch.nn.Linear``: keep its largest weights, or those of a mask.

        >>> import torch, spgrad
        >>> linear = torch.nn.Linear(784, 256)
        >>> spgrad.nn.SparseLinear.from_dense(linear, sparsity=0.95)
        SparseLinear(in_features=784, out_features=256, bias=True, nnz=10035, sparsity=0.95)

        A layer that ``torch.nn.utils.prune`` has pruned goes over with ``mask=linear.weight_mask``.

        Args:
            linear: The layer, which stays as it is.
            sparsity: Share of weights to leave out, 0.9 if there is no ``mask``: those of the
                smallest magnitude, exactly as many as the constructor leaves out.
            mask: As for the constructor.

        Returns:
            A layer with copies of the weights and the bias, on their device, with their dtype,
            their ``requires_grad`` flags and the mode (training or not) of ``linear``.

        Raises:
            ValueError: ``linear`` is no ``torch.nn.Linear``, or as for the constructor.

        Magnitude pruning: Han et al., "Learning both Weights and Connections for Efficient Neural
        Networks", 2015.

        """
        if not isinstance(linear, nn.Linear):
            message = f"linear must be a torch.nn.Linear, but received {type(linear).__name__}"
            raise ValueError(message)  # noqa: TRY004 - as the products do
        weight = linear.weight.detach().cpu()
        if mask is None:
            kept = (
                weight.abs()
                .flatten()
                .topk(_layer_pattern.count_present(sparsity, weight.numel()))
                .indices
            )
            checked = torch.zeros(weight.shape, dtype=torch.bool, device="cpu")
            checked.view(-1)[kept] = True
        else:
            shape = (linear.out_features, linear.in_features)
            checked = _layer_pattern.checked_mask(mask, sparsity, shape)
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            mask=checked,
            device="cpu",
            dtype=weight.dtype,
            # For values that are overwritten: PyTorch's own generator is left as it is.
            generator=torch.Generator(),
        )
        with torch.no_grad():
            layer.weight.copy_(weight[checked])
        layer.weight.requires_grad_(linear.weight.requires_grad)
        _copy_bias(linear, layer)
        return layer.to(linear.weight.device).train(linear.training)

    def to_dense(self) -> nn.Linear:
        """Make a ``torch.nn.Linear`` with the same weights, zero where they are absent.

        >>> import torch, spgrad
        >>> layer = spgrad.nn.SparseLinear(3, 2, mask=torch.tensor([[0, 1, 0], [1, 0, 1]]))
        >>> layer.to_dense().weight != 0
        tensor([[False,  True, False],
                [ True, False,  True]])

        Returns:
            A layer with copies of the weights and the bias, on their device, with their dtype,
            their ``requires_grad`` flags and the mode (training or not) of this layer.

        """
        linear: nn.Linear = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        rows = _layer_pattern.rows_of(self.crow_indices, self.nnz)
        with torch.no_grad():
            linear.weight.zero_()[rows, self.col_indices] = self.weight
        linear.weight.requires_grad_(self.weight.requires_grad)
        _copy_bias(self, linear)
        return linear.train(self.training)

    @property
    def values(self) -> Tensor:
        """The former name of ``weight``, to be read only."""
        return self.weight

    @property
    def mask(self) -> Tensor:
        """The places of the weights, a new bool tensor ``(out_features, in_features)``."""
        mask = torch.zeros(
            self.out_features, self.in_features, dtype=torch.bool, device=self.col_indices.device
        )
        mask[_layer_pattern.rows_of(self.crow_indices, self.nnz), self.col_indices] = True
        return mask

    @property
    def nnz(self) -> int:
        """Number of weights."""
        return self.col_indices.shape[0]

    @property
    def sparsity(self) -> float:
        """Share of weights that are absent; 0 where a dense layer would have none."""
        possible = self.out_features * self.in_features
        return 1 - self.nnz / possible if possible else 0.0

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw values and bias anew, uniformly between ±1/√(fan-in of the row).

        >>> import torch, spgrad
        >>> layer = spgrad.nn.SparseLinear(64, 16, sparsity=0.75)
        >>> layer.reset_parameters(torch.Generator().manual_seed(0))
        >>> bool(layer.weight.abs().max() <= 1 / 4)
        True

        That is what ``torch.nn.Linear`` does, Kaiming-uniform with a = √5, but with the number of
        weights that the row has. The bias of a row without weights is zero.

        Args:
            generator: Source of the random numbers; PyTorch's default one if None.

        Raises:
            RuntimeError: The buffers hold no pattern, as after ``to_empty``.

        He et al., "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet
        Classification", 2015.

        """
        of_each, bound = _layer_pattern.uniform_bounds(
            self.crow_indices.diff(), self.nnz, self.weight.dtype
        )
        with torch.no_grad():
            for name, bounds in (("weight", of_each), ("bias", bound)):
                if getattr(self, name) is None:
                    continue
                drawn = torch.empty_like(bounds).uniform_(-1, 1, generator=generator).mul_(bounds)
                if is_parametrized(self, name):
                    setattr(self, name, drawn)  # what it is computed from is set so that it is this
                else:
                    getattr(self, name).copy_(drawn)

    def change_pattern_(
        self,
        mask: Tensor,
        *,
        values: Tensor | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Set another pattern, and keep the weights that are in both.

        >>> import torch, spgrad
        >>> layer = spgrad.nn.SparseLinear(3, 2, mask=torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> layer.change_pattern_(torch.tensor([[0, 1, 1], [1, 0, 1]]), optimizer=optimizer)
        >>> layer.weight
        Parameter containing:
        tensor([2., 0., 0., 3.], requires_grad=True)

        Call it between steps: after the backward pass, and before the next forward one. Pruning
        and regrowing while training goes on (SET, RigL) is this and :meth:`absent_gradient`.

        ``weight`` stays the same Parameter object, and ``weight.grad`` becomes None. A call that
        fails changes nothing. Other copies of the weights, such as running averages of a model, and
        optimisers that are not given do not notice. In distributed training, make the same change
        in all processes; where the number of weights changes, ``DistributedDataParallel`` must be
        made anew, as it has memory for as many gradients as there were.

        Args:
            mask: As for the constructor.
            values: Dense tensor of shape ``(number of new weights,)`` and a real dtype, in
                row-major order: ``dense[mask & ~layer.mask]`` of a matrix with bool masks. New
                weights are 0 if it is None.
            optimizer: The optimiser of ``weight``. Each tensor of shape ``(nnz,)`` in its state,
                such as the two averages of Adam, keeps the numbers of the weights that stay, and
                gets 0 for new ones.

        Raises:
            ValueError: ``mask`` has another shape or other numbers, ``values`` has another shape or
                no real dtype, or ``optimizer`` is none, does not have ``weight``, or keeps no state
                for each parameter, as LBFGS.
            RuntimeError: ``weight`` is parametrised, by ``torch.nn.utils.parametrize`` or
                ``torch.nn.utils.prune``, or the layer is on the meta device.

        Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
        connectivity inspired by network science" (SET), 2018; Evci et al., "Rigging the Lottery:
        Making All Tickets Winners" (RigL), 2020.

        """
        weight = self._parameters.get("weight")
        if weight is None:
            message = (
                "weight must be a plain parameter where the pattern changes, but received one that "
                "is parametrised; remove the parametrisation first"
            )
            raise RuntimeError(message)
        if weight.is_meta:
            message = "the layer must have data where its pattern changes, but is on device meta"
            raise RuntimeError(message)
        shape = (self.out_features, self.in_features)
        checked = _layer_pattern.checked_mask(mask, None, shape)
        state = {} if optimizer is None else _state_of(optimizer, weight)
        # Tensors that are made in inference mode could not be trained with later.
        with torch.inference_mode(mode=False), torch.no_grad():
            structure = [x.to(weight.device) for x in _layer_pattern.of_mask(checked)]
            successor = _layer_pattern.Successor.of(
                (self.crow_indices, self.col_indices), (structure[0], structure[1]), shape[1]
            )
            if values is not None:
                _check_values(values, len(successor.stays) - len(successor.sources))
            changed = successor.carried(weight, 0 if values is None else values.detach())
            carried = {
                name: successor.carried(x)
                for name, x in state.items()
                if isinstance(x, Tensor) and x.shape == weight.shape
            }
            _replace_data(weight, changed)
        state.update(carried)
        for name, tensor in zip(_STRUCTURE, structure, strict=True):
            setattr(self, name, tensor)

    def absent_gradient(
        self,
        input: Tensor,  # noqa: A002 - as forward has it
        grad_output: Tensor,
        k: int,
    ) -> tuple[Tensor, Tensor]:
        """Find the absent weights with the largest gradients, as RigL lets them grow.

        >>> import torch, spgrad
        >>> layer = spgrad.nn.SparseLinear(3, 2, mask=torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> x = torch.tensor([[1.0, 2.0, 3.0]])
        >>> output = layer(x)
        >>> (grad_output,) = torch.autograd.grad((output * torch.tensor([1, -4])).sum(), output)
        >>> layer.absent_gradient(x, grad_output, 2)
        (tensor([[1, 1],
                [1, 0]]), tensor([-8., -4.]))

        A weight that is absent has the gradient that it would have if it were there and 0. That of
        all is the dense matrix ``grad_output.T @ input``, of which some rows are computed at a
        time: 16 MB of float32, or a row where that is more. It takes as long as a dense layer, so
        call it for one batch of many.

        Args:
            input: The input of the layer, ``(*, in_features)``.
            grad_output: The gradient of its output, ``(*, out_features)``, with the leading
                dimensions and the dtype of ``input``: from ``torch.autograd.grad``, or a hook of
                ``register_full_backward_hook``.
            k: How many, from 0 to the number of absent weights.

        Returns:
            Their rows and columns, int64 of shape ``(2, k)``, and their gradients, of shape
            ``(k,)``; those of the largest magnitude come first.

        Raises:
            ValueError: An argument is no tensor, shapes do not fit, or ``k`` is negative or above
                the number of absent weights.
            RuntimeError: Dtypes differ, or devices do.

        Evci et al., "Rigging the Lottery: Making All Tickets Winners" (RigL), 2020.

        """
        refuse_others_than_tensors(input=input, grad_output=grad_output)
        self._check_input(input)
        expected = (*input.shape[:-1], self.out_features)
        if grad_output.shape != expected:
            message = (
                f"grad_output must have shape {expected}, but received {tuple(grad_output.shape)}"
            )
            raise ValueError(message)
        if grad_output.dtype != input.dtype:
            message = (
                f"grad_output must have the dtype of input, {input.dtype}, "
                f"but received {grad_output.dtype}"
            )
            raise RuntimeError(message)
        absent = self.out_features * self.in_features - self.nnz
        if not isinstance(k, int) or not 0 <= k <= absent:
            message = (
                f"k must be from 0 to the number of absent weights, {absent}, but received {k!r}"
            )
            raise ValueError(message)
        with torch.no_grad():
            samples = input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0)
            of_output = grad_output.reshape(len(samples), self.out_features)
            return largest_absent(samples, of_output, self.crow_indices, self.col_indices, k)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch.nn uses
        """Apply the layer to the last dimension of the input."""
        refuse_others_than_tensors(input=input)
        self._check_input(input)
        samples = input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0)
        product: Tensor = _pattern_mm(
            self.crow_indices,
            self.col_indices,
            self.column_offsets,
            self.column_entries,
            (self.out_features, self.in_features),
            self.weight,
            samples.T,
        )
        # Contiguous, so that view() works as it does behind torch.nn.Linear. The copy takes 5 % of
        # a small step at most, and nothing that can be measured of a large one.
        output = product.T.contiguous()
        if self.bias is not None:
            # Under autocast, the bias joins the lower precision, as torch.nn.Linear has it.
            output = output + self.bias.to(output.dtype)
        return output.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Name the sizes, and how many weights there are."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, nnz={self.nnz}, sparsity={self.sparsity:.4g}"
        )

    def _check_input(self, input: Tensor) -> None:  # noqa: A002 - as forward has it
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            message = (
                f"input must have shape (*, {self.in_features}), but received {tuple(input.shape)}"
            )
            raise ValueError(message)
        if not input.is_floating_point():
            message = (
                f"input must have the dtype of the parameters, {self.weight.dtype}, "
                f"but received {input.dtype}"
            )
            raise RuntimeError(message)

    def _make_room(self, weight: object, col_indices: object) -> None:
        """Take as many weights as a state has; what does not fit otherwise is PyTorch's to tell."""
        if not (isinstance(weight, Tensor) and isinstance(col_indices, Tensor)):
            return
        if weight.dim() != 1 or weight.shape != col_indices.shape or len(weight) == self.nnz:
            return
        own = self._parameters.get("weight")
        if own is None:
            return
        _replace_data(own, own.new_empty(weight.shape))
        self.col_indices = self.col_indices.new_empty(weight.shape)
        self.column_entries = self.column_entries.new_empty((len(weight), 2))

    def _load_from_state_dict(  # noqa: PLR0913, PLR0917 - as torch.nn.Module has it
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,  # noqa: FBT001
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load what was saved, and make the transposed pattern of it."""
        # What has no version may be of any: a file of tensors alone, say.
        version = local_metadata.get("version", 1)
        if version > self._version:
            error_msgs.append(
                f"{prefix}version of SparseLinear must be at most {self._version}, "
                f"but received {version}; a later spgrad wrote it"
            )
            return
        weight = prefix + "weight"
        if version == 1 and prefix + "values" in state_dict and weight not in state_dict:
            state_dict[weight] = state_dict.pop(prefix + "values")
        self._make_room(state_dict.get(weight), state_dict.get(prefix + "col_indices"))
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        if not any(prefix + name in state_dict for name in _SAVED) or self.crow_indices.is_meta:
            return
        try:
            made = _layer_pattern.csr_pattern(
                self.crow_indices.cpu(), self.col_indices.cpu(), self.in_features
            )
        except RuntimeError as error:
            error_msgs.append(f"{prefix}pattern: {error}")
            return
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, tensor in zip(_STRUCTURE, made, strict=True):
            if assign:
                setattr(self, name, tensor.to(self.crow_indices.device))
            else:
                getattr(self, name).copy_(tensor)


def _copy_bias(source: nn.Linear | SparseLinear, target: nn.Linear | SparseLinear) -> None:
    if source.bias is not None and target.bias is not None:
        with torch.no_grad():
            target.bias.copy_(source.bias)
        target.bias.requires_grad_(source.bias.requires_grad)


def _replace_data(weight: nn.Parameter, data: Tensor) -> None:
    """Put data into a parameter, which may have another size, and forget its gradient."""
    if data.shape != weight.shape:
        # The node that adds up the gradient lives as long as some graph does, perhaps that of the
        # last loss, and knows the former shape. PyTorch makes it anew where the dtype changes.
        other = torch.float32 if weight.dtype == torch.float64 else torch.float64
        weight.data = data.new_empty(0, dtype=other)
    weight.data = data
    weight.grad = None
    # A backward pass that is still to come would take the new weights for the former ones.
    torch.autograd.graph.increment_version(weight)


def _state_of(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Any]:
    """Give what an optimiser keeps for a parameter, and nothing before its first step."""
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        message = (
            "optimizer must be a torch.optim.Optimizer that keeps a state for each parameter, "
            f"but received {type(optimizer).__name__}"
        )
        raise ValueError(message)  # noqa: TRY004 - as the products do
    if not any(x is weight for group in optimizer.param_groups for x in group["params"]):
        message = "optimizer must have the weight of the layer, but received one that does not"
        raise ValueError(message)
    state: dict[str, Any] = optimizer.state.get(weight, {})
    return state


def _check_values(values: Tensor, number: int) -> None:
    if not isinstance(values, Tensor) or values.layout != torch.strided:
        received = values.layout if isinstance(values, Tensor) else type(values).__name__
        message = f"values must be a dense tensor, but received {received}"
        raise ValueError(message)
    if values.shape != (number,) or values.is_complex():
        message = (
            f"values must have shape ({number},), one for each new weight, and a real dtype, "
            f"but received shape {tuple(values.shape)} and {values.dtype}"
        )
        raise ValueError(message)
