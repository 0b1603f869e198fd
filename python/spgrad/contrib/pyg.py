"""Layers of PyTorch Geometric whose messages go through spgrad.

They take the place of those of ``torch_geometric.nn``: the same arguments, parameters and
``state_dict``, the same results up to rounding, and no array with the features of each edge. The
extra ``pyg`` of the package brings PyTorch Geometric.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import dropout, leaky_relu
from torch.utils.weak import WeakTensorKeyDictionary

from spgrad._optional import needed
from spgrad._pattern import Pattern

with needed(
    "torch_geometric", "spgrad.contrib.pyg needs PyTorch Geometric: pip install torch_geometric"
):
    import torch_geometric.nn
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import add_remaining_self_loops, add_self_loops, remove_self_loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from spgrad._products import Reduce

__all__ = ["GATConv", "GCNConv", "SAGEConv"]

_Features = Tensor | tuple[Tensor, Tensor | None]
_Size = tuple[int, int] | None
# Others are sums: a mean is one with other values.
_REDUCTIONS: dict[str, Reduce] = {"max": "amax", "min": "amin"}
_STEPS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
_HOOKS = tuple(f"_{step}_forward_{kind}" for step in _STEPS for kind in ("pre_hooks", "hooks"))


@dataclass(frozen=True)
class _Graph:
    """A graph with its edges sorted by target, in which products are fastest."""

    pattern: Pattern
    order: Tensor
    """The place of each edge among those that were given."""
    target: Tensor
    source: Tensor
    values: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)
    """Values of the edges that layers made of nothing but the graph."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def remembered(self, name: str, dtype: torch.dtype, make: Callable[[], Tensor]) -> Tensor:
        """Make such values where they are not there yet."""
        if (name, dtype) not in self.values:
            with torch.inference_mode(mode=False), torch.no_grad():
                self.values[name, dtype] = make()
        return self.values[name, dtype]


# The graphs made of a tensor, with the version of it that they were made of. They go when it goes.
_graphs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _graph_of(edge_index: Tensor, targets: int, sources: int, *, loops: bool) -> _Graph:
    """Make the graph of a tensor of edges, or take the one that was made of it before."""
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
        received = getattr(edge_index, "layout", type(edge_index).__name__)
        message = f"edge_index must be a dense tensor of shape (2, edges), but received {received}"
        raise ValueError(message)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:  # noqa: PLR2004
        received = tuple(edge_index.shape)
        message = f"edge_index must have shape (2, edges), but received {received}"
        raise ValueError(message)
    if edge_index.dtype not in (torch.int32, torch.int64):
        message = f"edge_index must be int32 or int64, but received {edge_index.dtype}"
        raise RuntimeError(message)
    with torch.inference_mode(mode=False), torch.no_grad():
        if edge_index.is_inference():  # nobody counts its changes
            return _made(edge_index.clone(), targets, sources, loops=loops)
        version, made = _graphs.get(edge_index, (None, {}))
        if version != edge_index._version:  # noqa: SLF001
            made = {}
            _graphs[edge_index] = edge_index._version, made  # noqa: SLF001
        key = targets, sources, loops
        if key not in made:
            made[key] = _made(edge_index, targets, sources, loops=loops)
        graph: _Graph = made[key]
        return graph


def _made(edge_index: Tensor, targets: int, sources: int, *, loops: bool) -> _Graph:
    edges = edge_index.as_subclass(Tensor).long()
    if loops:
        edges, _ = add_remaining_self_loops(edges, num_nodes=min(targets, sources))
    order = edges[1].argsort(stable=True)
    source, target = edges[:, order]
    pattern = Pattern.from_coo(torch.stack([target, source]), (targets, sources))
    return _Graph(pattern, order, target, source)


def _sizes(x: tuple[Tensor, Tensor | None], size: _Size) -> tuple[int, int]:
    """Count the targets and the sources, as PyTorch Geometric does."""
    source, target = x
    sources = source.shape[-2]
    targets = (sources if size is None else size[1]) if target is None else target.shape[-2]
    if size is not None and tuple(size) != (sources, targets):
        message = f"size must be {(sources, targets)}, as x has it, but received {size}"
        raise ValueError(message)
    return targets, sources


class _Layer(MessagePassing):  # type: ignore[misc]  # it has no types
    """What the layers share."""

    # PyTorch Geometric's own steps, where they are asked for: the general ones, since those that it
    # writes out for each class do not fit a derived one.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater
    _aggregations: tuple[str, ...] = ("add", "sum")
    _node_dim = -2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the layer."""
        super().__init__(*args, **kwargs)
        if self.aggr not in self._aggregations:
            accepted = ", ".join(map(repr, self._aggregations))
            message = f"aggr must be one of {accepted}, but received {self.aggr!r}"
            raise ValueError(message)
        if self.flow != "source_to_target":
            message = (
                f"flow must be 'source_to_target', but received {self.flow!r}; "
                "edge_index.flip(0) is the graph the other way round"
            )
            raise ValueError(message)
        if self.node_dim != self._node_dim:
            message = f"node_dim must be {self._node_dim}, but received {self.node_dim}"
            raise ValueError(message)

    @property
    def _by_steps(self) -> bool:
        """Whether PyTorch Geometric's own steps are asked for: by an explanation, or by hooks."""
        return bool(self.explain) or any(getattr(self, hooks) for hooks in _HOOKS)

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:  # noqa: FBT001, FBT002
        pass


class GCNConv(_Layer, torch_geometric.nn.GCNConv):  # type: ignore[misc]
    """The convolution of Kipf and Welling, as ``torch_geometric.nn.GCNConv``.

    >>> import torch
    >>> from spgrad.contrib.pyg import GCNConv
    >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    >>> GCNConv(8, 4)(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 4])

    The graph is sorted and normalised once for each tensor ``edge_index``, shared by all layers,
    and forgotten with it, so that ``cached`` has no effect. In-place changes of the tensor are
    noticed, unless they go through NumPy or ``.data``.

    Args:
        args: Those of ``torch_geometric.nn.GCNConv``.
        kwargs: Those of ``torch_geometric.nn.GCNConv``; ``flow`` and ``node_dim`` must stay as they
            are.

    Shapes:
        ``x`` of ``(*, nodes, in_channels)``, ``edge_index`` of ``(2, edges)``: sources, then
        targets; ``edge_weight`` of ``(edges,)``, which may have a gradient; output
        ``(*, nodes, out_channels)``.

    Raises:
        ValueError: An argument is not served. In the forward pass: ``edge_index`` has
            another shape, or is sparse, ``edge_weight`` has another number of weights, or ``x`` is
            a pair.
        RuntimeError: In the forward pass: an edge names a node that is not there, or dtypes or
            devices do not fit.

    Kipf and Welling, "Semi-supervised classification with graph convolutional networks", 2017.

    """

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Compute the layer, by PyTorch Geometric itself where its own steps are asked for."""
        if self._by_steps:
            explained: Tensor = super().forward(x, edge_index, edge_weight)
            return explained
        if not isinstance(x, Tensor):
            message = (
                "x must be a tensor of shape (*, nodes, in_channels), as sources are targets in "
                f"GCNConv, but received {type(x).__name__}"
            )
            raise ValueError(message)  # noqa: TRY004 - as the products do
        nodes = x.shape[-2]
        loops = self.normalize and self.add_self_loops
        graph = _graph_of(edge_index, nodes, nodes, loops=loops)
        if edge_weight is None:
            weight = graph.remembered(
                f"GCNConv, normalize={self.normalize}, improved={self.improved}",
                x.dtype,
                lambda: self._weights(graph, edge_index, None, x),
            )
        else:
            weight = self._weights(graph, edge_index, edge_weight, x)
        messages = self.lin(x)
        if edge_weight is not None:
            dtype = torch.promote_types(weight.dtype, messages.dtype)
            weight, messages = weight.to(dtype), messages.to(dtype)
        out: Tensor = graph.pattern.mm(weight, messages)
        return out if self.bias is None else out + self.bias

    def _weights(
        self, graph: _Graph, edge_index: Tensor, edge_weight: Tensor | None, x: Tensor
    ) -> Tensor:
        """Normalise the weights of the edges, and sort them."""
        if edge_weight is not None and edge_weight.numel() != edge_index.shape[1]:
            message = (
                f"edge_weight must have shape ({edge_index.shape[1]},), one for each edge, "
                f"but received {tuple(edge_weight.shape)}"
            )
            raise ValueError(message)
        if self.normalize:
            options = (x.shape[-2], self.improved, self.add_self_loops, self.flow, x.dtype)
            _, edge_weight = gcn_norm(edge_index.long(), edge_weight, *options)
        if edge_weight is None:
            return x.new_ones(len(graph.order))
        return edge_weight.flatten()[graph.order]


class SAGEConv(_Layer, torch_geometric.nn.SAGEConv):  # type: ignore[misc]
    """The layer of GraphSAGE, as ``torch_geometric.nn.SAGEConv``.

    >>> import torch
    >>> from spgrad.contrib.pyg import SAGEConv
    >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    >>> SAGEConv(8, 4, aggr="mean")(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 4])

    The graph is remembered as :class:`GCNConv` does.

    Args:
        args: Those of ``torch_geometric.nn.SAGEConv``.
        kwargs: Those of ``torch_geometric.nn.SAGEConv``; ``aggr`` is ``"mean"``, ``"add"``,
            ``"sum"``, ``"max"`` or ``"min"``; ``flow`` and ``node_dim`` must stay as they are. Of
            equal numbers the first has the gradient of the greatest, where PyTorch Geometric shares
            it out.

    Shapes:
        ``x`` of ``(*, nodes, in_channels)``, or a pair of ``(*, sources, in_channels[0])`` and
        ``(*, targets, in_channels[1])`` or None; ``edge_index`` of ``(2, edges)``: sources, then
        targets; output ``(*, targets, out_channels)``.

    Raises:
        ValueError: An argument is not served. In the forward pass: ``edge_index`` has another
            shape, or is sparse, or ``size`` is not that of ``x``.
        RuntimeError: In the forward pass: an edge names a node that is not there, or dtypes or
            devices do not fit.

    Hamilton et al., "Inductive representation learning on large graphs", 2017.

    """

    _aggregations = ("mean", "add", "sum", "max", "min")

    def propagate(self, edge_index: Tensor, size: _Size = None, **kwargs: Any) -> Tensor:
        """Aggregate over the neighbours, by PyTorch Geometric where its own steps are asked for."""
        if self._by_steps:
            explained: Tensor = super().propagate(edge_index, size=size, **kwargs)
            return explained
        x = kwargs["x"]
        graph = _graph_of(edge_index, *_sizes(x, size), loops=False)
        name, dtype = f"SAGEConv, {self.aggr}", x[0].dtype
        values = graph.remembered(name, dtype, lambda: self._values(graph, dtype))
        out: Tensor = graph.pattern.mm(values, x[0], reduce=_REDUCTIONS.get(self.aggr, "sum"))
        return out

    def _values(self, graph: _Graph, dtype: torch.dtype) -> Tensor:
        values = torch.ones_like(graph.target, dtype=dtype)
        if self.aggr == "mean":  # once for a graph, where reduce="mean" would divide in each step
            values /= graph.target.bincount()[graph.target]
        return values


class GATConv(_Layer, torch_geometric.nn.GATConv):  # type: ignore[misc]
    """The attention of Veličković et al., as ``torch_geometric.nn.GATConv``.

    >>> import torch
    >>> from spgrad.contrib.pyg import GATConv
    >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    >>> GATConv(8, 4, heads=2)(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 8])

    The graph is remembered as :class:`GCNConv` does. ``dropout`` draws other numbers than PyTorch
    Geometric from the same seed.

    Args:
        args: Those of ``torch_geometric.nn.GATConv``.
        kwargs: Those of ``torch_geometric.nn.GATConv``; ``flow`` and ``node_dim`` must stay as they
            are.

    Shapes:
        ``x`` of ``(nodes, in_channels)``, or a pair of ``(sources, in_channels[0])`` and
        ``(targets, in_channels[1])`` or None; ``edge_index`` of ``(2, edges)``: sources, then
        targets; ``edge_attr`` of ``(edges, edge_dim)``; output
        ``(targets, heads * out_channels)``, or ``(targets, out_channels)`` with ``concat=False``.

    Raises:
        ValueError: An argument is not served. In the forward pass: ``x``, ``edge_index``
            or ``edge_attr`` has another shape, or ``edge_index`` is sparse.
        RuntimeError: In the forward pass: an edge names a node that is not there, or dtypes or
            devices do not fit.

    Veličković et al., "Graph attention networks", 2018.

    """

    _node_dim = 0  # which its base sets

    def forward(
        self,
        x: _Features,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        size: _Size = None,
        return_attention_weights: bool | None = None,  # noqa: FBT001 - as its base has it
    ) -> Any:
        """Compute the layer, by PyTorch Geometric itself where its own steps are asked for."""
        if self._by_steps:
            return super().forward(x, edge_index, edge_attr, size, return_attention_weights)
        source, target = (x, x) if isinstance(x, Tensor) else x
        if source.dim() != 2:  # noqa: PLR2004
            message = f"x must have shape (nodes, in_channels), but received {tuple(source.shape)}"
            raise ValueError(message)
        targets, sources = _sizes((source, target), size)
        graph = _graph_of(edge_index, targets, sources, loops=self.add_self_loops)
        messages, logits = self._messages(graph, source, target)
        if edge_attr is not None and edge_attr.shape[0] != edge_index.shape[1]:
            message = (
                f"edge_attr must have shape ({edge_index.shape[1]}, edge_dim), a row for each "
                f"edge, but received {tuple(edge_attr.shape)}"
            )
            raise ValueError(message)
        if edge_attr is not None and self.lin_edge is not None:
            logits += self._of_edges(graph, edge_index, edge_attr)
        logits = leaky_relu(logits, self.negative_slope, inplace=self.negative_slope >= 0)

        # The softmax of the logits, but for its division, which waits for the sums over messages:
        # there are fewer nodes than edges.
        ones = logits.new_ones(sources, 1)
        with torch.no_grad():
            greatest = logits.new_full((self.heads, targets), -torch.inf)
            places = graph.target.expand_as(logits)
            greatest = greatest.scatter_reduce(-1, places, logits, "amax")
            shift = graph.pattern.sddmm(greatest.unsqueeze(-1), ones)
        powers = (logits - shift).exp_()
        total = graph.pattern.mm(powers, ones)  # at least 1 where there are edges
        factors = total.masked_fill(total == 0, 1).reciprocal()
        dropped = dropout(powers, p=self.dropout, training=self.training)
        out = (graph.pattern.mm(dropped, messages) * factors).transpose(0, 1)

        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if self.res is not None and target is not None:
            out = out + self.res(target)
        if self.bias is not None:
            out = out + self.bias
        if not return_attention_weights:
            return out
        attention = dropped * graph.pattern.sddmm(factors, ones)
        return out, (torch.stack([graph.source, graph.target]), attention.T)

    def _messages(
        self, graph: _Graph, source: Tensor, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute messages of ``(heads, sources, channels)``, and logits from both ends."""
        messages = self._of_heads(source, self.lin or self.lin_src)
        one = messages.new_ones(1, 1)
        targets, sources = graph.pattern.shape
        at_target = None
        if target is source and self.lin is not None:
            ends = messages @ torch.cat([self.att_src, self.att_dst]).permute(1, 2, 0)
            at_source, at_target = ends.split(1, dim=-1)
        else:
            at_source = messages @ self.att_src.movedim(0, -1)
            if target is not None:
                projected = self._of_heads(target, self.lin or self.lin_dst)
                at_target = projected @ self.att_dst.movedim(0, -1)
        logits = graph.pattern.sddmm(one.expand(targets, 1), at_source)
        if at_target is not None:
            logits += graph.pattern.sddmm(at_target, one.expand(sources, 1))
        return messages, logits

    def _of_heads(self, x: Tensor, linear: Any) -> Tensor:
        """Project features to ``(heads, nodes, channels)``, where products are fastest."""
        shape = (self.heads, self.out_channels)
        of_heads: Tensor = linear(x).unflatten(-1, shape).transpose(0, 1).contiguous()
        return of_heads

    def _of_edges(self, graph: _Graph, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Compute what features of edges add to the logits, in ``(heads, edges)``."""
        if edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        if self.add_self_loops:
            edges, edge_attr = remove_self_loops(edge_index.as_subclass(Tensor), edge_attr)
            nodes = min(graph.pattern.shape)
            _, edge_attr = add_self_loops(edges, edge_attr, self.fill_value, nodes)
        weight = self.lin_edge.weight.unflatten(0, (self.heads, self.out_channels))
        of_heads = (weight * self.att_edge.squeeze(0).unsqueeze(-1)).sum(1)
        logits: Tensor = edge_attr[graph.order] @ of_heads.T
        return logits.T
