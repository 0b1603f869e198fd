"""The table of docs/limits.md: which optimisers and tools of PyTorch take which parameter."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import spgrad

LIMITS = Path(__file__).parents[2] / "docs" / "limits.md"
DENSE = torch.eye(4)
B = torch.ones(4, 2)


class Model(nn.Module):
    """One product with a parameter of one of the three kinds."""

    def __init__(self, kind):
        super().__init__()
        A = DENSE.to_sparse_csr()
        self.structure = A.crow_indices(), A.col_indices()
        given = {"CSR": A, "COO": DENSE.to_sparse(), "values": A.values().clone()}
        self.weight = nn.Parameter(given[kind])

    def forward(self, B):
        if self.weight.layout == torch.strided:
            return spgrad.csr_mm(*self.structure, self.weight, B)
        return spgrad.sparse_mm(self.weight, B)

    def loss(self):
        loss = self(B).square().sum()
        loss.backward()
        return loss


def optimiser(make, **options):
    """Take some steps, which must make every weight smaller."""

    def use(model):
        steps = make(list(model.parameters()), lr=0.01, **options)
        for _ in range(2):
            steps.zero_grad()
            model.loss()
            steps.step()
        weight = model.weight.detach()
        dense = torch.diag(weight) if weight.layout == torch.strided else weight.to_dense()
        assert torch.all(dense.diagonal() < 1)

    return use


def use_lbfgs(model):
    steps = optim.LBFGS(model.parameters())

    def closure():
        steps.zero_grad()
        return model.loss()

    steps.step(closure)


def use_scaler(model):
    steps, scaler = optim.SGD(model.parameters(), lr=0.01), torch.amp.GradScaler("cpu")
    scaler.scale(model(B).sum()).backward()
    scaler.step(steps)


def clip_norm(model):
    model.loss()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def clip_value(model):
    model.loss()
    nn.utils.clip_grad_value_(model.parameters(), 1.0)


def norm_of_gradient(model):
    model.loss()
    assert model.weight.grad.norm() > 0


def detect_anomaly(model):
    with torch.autograd.detect_anomaly():
        model.loss()


def distributed(model):
    nn.parallel.DistributedDataParallel(model)(B).sum().backward()


def reload(model):
    model.load_state_dict(model.state_dict())


def two_passes(model):
    model.loss()
    once = model.weight.grad.to_dense().clone()
    model.loss()
    assert torch.equal(model.weight.grad.to_dense(), 2 * once)


TOOLS = {
    "`SGD`, with momentum or weight decay": optimiser(optim.SGD, momentum=0.9, weight_decay=0.1),
    "`Adam`, `AdamW`": optimiser(optim.AdamW),
    "`RMSprop`": optimiser(optim.RMSprop),
    "`Adagrad`": optimiser(optim.Adagrad),
    "`LBFGS`": use_lbfgs,
    "`SparseAdam`": optimiser(optim.SparseAdam),
    "`clip_grad_norm_`": clip_norm,
    "`clip_grad_value_`": clip_value,
    "`A.grad.norm()`": norm_of_gradient,
    "`torch.amp.GradScaler`": use_scaler,
    "`detect_anomaly`": detect_anomaly,
    "`DistributedDataParallel`": distributed,
    "`copy.deepcopy`": copy.deepcopy,
    "`state_dict`, `load_state_dict`": reload,
    "gradients of several backward passes": two_passes,
}


def outcome(use, kind):
    """Say whether a tool takes a kind of parameter."""
    try:
        use(Model(kind))
    except (RuntimeError, ValueError):
        return "no"
    return "yes"


def rows_of_table():
    """Read the rows of the table, with a yes or a no for each kind of parameter."""
    lines = LIMITS.read_text().partition("| optimiser or tool |")[2].splitlines()[2:]
    for line in lines:
        if not line.startswith("|"):
            return
        name, *kinds = [cell.strip() for cell in line.strip("|").split("|")]
        yield name, kinds


TABLE = dict(rows_of_table())


def test_the_table_has_all_of_them():
    assert list(TABLE) == list(TOOLS)


@pytest.mark.usefixtures("group_of_one_process")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOOLS)
def test_what_the_table_says_is_true(name):
    assert [outcome(TOOLS[name], kind) for kind in ("CSR", "COO", "values")] == TABLE[name]
