"""The linear layer with a fixed pattern of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

_csr_pattern = torch.ops.spgrad.csr_pattern.default
_pattern_mm = torch.ops.spgrad.pattern_mm.default

_DEFAULT_SPARSITY = 0.9
# The tensors of a pattern, in the order in which the operators take them.
_STRUCTURE = ("crow_indices", "col_indices", "column_offsets", "column_entries")
_SAVED = _STRUCTURE[:2]
# Random numbers drawn at a time for a pattern: 16 MB.
_BLOCK = 1 << 22


class SparseLinear(nn.Module):
    """A ``torch.nn.Linear`` most of whose weights are absent: ``x @ weight.T + bias``.

    The pattern of ``weight`` is fixed; the values at its places are learned.

    >>> import torch, spgrad
    >>> layer = spgrad.nn.SparseLinear(784, 256, sparsity=0.9)
    >>> layer
    SparseLinear(in_features=784, out_features=256, bias=True, nnz=20070, sparsity=0.9)
    >>> layer(torch.randn(64, 784)).shape
    torch.Size([64, 256])
    >>> optimizer = torch.optim.Adam(layer.parameters())

    Attributes:
        values: Parameter of shape ``(nnz,)``: the weights in row-major order.
        bias: Parameter of shape ``(out_features,)``, or None.
        crow_indices: Buffer of shape ``(out_features + 1,)``: where each row starts in ``values``.
        col_indices: Buffer of shape ``(nnz,)``: the input that each weight belongs to.

    Both buffers are int32 where that suffices, and they are in the ``state_dict``. Two further
    buffers, 8 bytes for each weight, hold the transposed pattern for the backward pass; they are
    made anew when a ``state_dict`` is loaded. Do not change buffers otherwise.

    ``load_state_dict`` takes the pattern along with the weights; the layer must have as many of
    them. A layer made on the meta device gets its pattern from ``to_empty`` and
    ``load_state_dict``, or ``load_state_dict(..., assign=True)``.

    ``DistributedDataParallel`` sends the pattern of the first process to the others, in each step.
    ``broadcast_buffers=False`` saves that, but PyTorch then never sends it: make the layer from the
    same seed in all processes.

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
        ValueError: Sizes are negative, ``bias`` is no bool, ``sparsity`` is outside [0, 1],
            ``mask`` has another shape or other numbers, or both are given. In the forward pass: the
            input has another size, or is no tensor.
        RuntimeError: In the forward pass, dtypes or devices differ or are not supported. In
            ``load_state_dict``, sizes differ, or the pattern is malformed.

    """

    # Of the state_dict: 1 has values, crow_indices, col_indices and, where there is one, bias.
    _version = 1

    in_features: int
    out_features: int
    values: nn.Parameter
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
        if in_features < 0 or out_features < 0:
            message = (
                "in_features and out_features must not be negative, "
                f"but received {in_features} and {out_features}"
            )
            raise ValueError(message)
        self.in_features = in_features
        self.out_features = out_features
        device = torch.get_default_device() if device is None else torch.device(device)
        if mask is None:
            present = _present(sparsity, out_features * in_features)
            if device.type == "meta":
                structure = _meta_structure(out_features, in_features, present)
            else:
                crow_indices, col_indices = _deal(out_features, in_features, present, generator)
                structure = _csr_pattern(crow_indices, col_indices, in_features)
        else:
            checked = _checked_mask(mask, sparsity, (out_features, in_features))
            rows, col_indices = checked.nonzero(as_tuple=True)
            crow_indices = _offsets(torch.bincount(rows, minlength=out_features))
            structure = _csr_pattern(crow_indices, col_indices, in_features)
        for name, tensor in zip(_STRUCTURE, structure, strict=True):
            self.register_buffer(name, tensor.to(device), persistent=name in _SAVED)
        self.values = nn.Parameter(torch.empty(self.nnz, device=device, dtype=dtype))
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
            kept = weight.abs().flatten().topk(_present(sparsity, weight.numel())).indices
            checked = torch.zeros(weight.shape, dtype=torch.bool, device="cpu")
            checked.view(-1)[kept] = True
        else:
            checked = _checked_mask(mask, sparsity, (linear.out_features, linear.in_features))
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
            layer.values.copy_(weight[checked])
        layer.values.requires_grad_(linear.weight.requires_grad)
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
            device=self.values.device,
            dtype=self.values.dtype,
        )
        rows = self._of_each_weight(torch.arange(self.out_features, device=self.values.device))
        with torch.no_grad():
            linear.weight.zero_()[rows, self.col_indices] = self.values
        linear.weight.requires_grad_(self.values.requires_grad)
        _copy_bias(self, linear)
        return linear.train(self.training)

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
        >>> bool(layer.values.abs().max() <= 1 / 4)
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
        fan_in = self.crow_indices.diff()
        bound = torch.where(fan_in > 0, fan_in.double().rsqrt(), 0).to(self.values.dtype)
        with torch.no_grad():
            self.values.uniform_(-1, 1, generator=generator).mul_(self._of_each_weight(bound))
            if self.bias is not None:
                self.bias.uniform_(-1, 1, generator=generator).mul_(bound)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch.nn uses
        """Apply the layer to the last dimension of the input."""
        refuse_others_than_tensors(input=input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            message = (
                f"input must have shape (*, {self.in_features}), but received {tuple(input.shape)}"
            )
            raise ValueError(message)
        if not input.is_floating_point():
            message = (
                f"input must have the dtype of the parameters, {self.values.dtype}, "
                f"but received {input.dtype}"
            )
            raise RuntimeError(message)
        samples = input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0)
        product: Tensor = _pattern_mm(
            self.crow_indices,
            self.col_indices,
            self.column_offsets,
            self.column_entries,
            (self.out_features, self.in_features),
            self.values,
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

    def _of_each_weight(self, of_each_row: Tensor) -> Tensor:
        fan_in = self.crow_indices.diff()
        return of_each_row.repeat_interleave(fan_in, output_size=self.nnz)

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
        # What has no version was not written by state_dict() of a module.
        version = local_metadata.get("version", self._version)
        if version > self._version:
            error_msgs.append(
                f"{prefix}version of SparseLinear must be at most {self._version}, "
                f"but received {version}; a later spgrad wrote it"
            )
            return
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
            made = _csr_pattern(self.crow_indices.cpu(), self.col_indices.cpu(), self.in_features)
        except RuntimeError as error:
            error_msgs.append(f"{prefix}pattern: {error}")
            return
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, tensor in zip(_STRUCTURE, made, strict=True):
            if assign:
                setattr(self, name, tensor.to(self.crow_indices.device))
            else:
                getattr(self, name).copy_(tensor)


def _present(sparsity: float | None, possible: int) -> int:
    sparsity = _DEFAULT_SPARSITY if sparsity is None else sparsity
    if not 0 <= sparsity <= 1:
        message = f"sparsity must be from 0 to 1, but received {sparsity}"
        raise ValueError(message)
    return possible - round(sparsity * possible)


def _checked_mask(mask: Tensor, sparsity: float | None, shape: tuple[int, int]) -> Tensor:
    if sparsity is not None:
        message = f"either sparsity or mask must be given, but received both (sparsity={sparsity})"
        raise ValueError(message)
    if not isinstance(mask, Tensor) or mask.layout != torch.strided or mask.shape != shape:
        received = (
            f"shape {tuple(mask.shape)} and layout {mask.layout}"
            if isinstance(mask, Tensor)
            else type(mask).__name__
        )
        message = f"mask must be a dense tensor of shape {shape}, but received {received}"
        raise ValueError(message)
    mask = mask.detach().cpu()
    others = mask[(mask != 0) & (mask != 1)]
    if len(others):
        message = f"mask must be bool or have zeros and ones only, but received {others[0].item()}"
        raise ValueError(message)
    return mask.bool()


def _offsets(counts: Tensor) -> Tensor:
    return nn.functional.pad(counts.cumsum(0), (1, 0))


def _deal(
    rows: int, columns: int, present: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw a CSR pattern with equally many entries in each row, or one more."""
    share, rest = divmod(present, max(rows, 1))
    counts = torch.full((rows,), share, device="cpu")
    counts[torch.randperm(rows, generator=generator, device="cpu")[:rest]] += 1
    most = share + (rest > 0)
    parts = []
    for part in counts.split(max(1, _BLOCK // max(columns, 1))):
        # The places of the largest of some random numbers are a draw without replacement.
        numbers = torch.rand(len(part), columns, generator=generator, device="cpu")
        drawn = numbers.topk(most).indices
        surplus = torch.arange(most, device="cpu") >= part.unsqueeze(1)
        drawn = drawn.masked_fill(surplus, columns).sort(dim=1).values
        parts.append(drawn[drawn < columns])
    return _offsets(counts), torch.cat(parts)


def _meta_structure(rows: int, columns: int, present: int) -> Iterable[Tensor]:
    """Give the tensors of a pattern without numbers: nothing is drawn."""
    dtype = torch.int32 if max(rows, columns, present) < 2**31 else torch.int64
    shapes = ((rows + 1,), (present,), (columns + 1,), (present, 2))
    return [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]


def _copy_bias(source: nn.Linear | SparseLinear, target: nn.Linear | SparseLinear) -> None:
    if source.bias is not None and target.bias is not None:
        with torch.no_grad():
            target.bias.copy_(source.bias)
        target.bias.requires_grad_(source.bias.requires_grad)
