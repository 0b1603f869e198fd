"""The table of docs/limits.md: which optimisers and tools of PyTorch take which parameters."""

import copy
import re
from pathlib import Path

import pytest
import torch
from copies import through_a_file
from torch import nn

import spgrad

PAGE = (Path(__file__).parents[2] / "docs/limits.md").read_text(encoding="utf-8")
DENSE = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, -4.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.0]])
PATTERN = spgrad.Pattern(DENSE.to_sparse_csr())
B, TARGET = torch.linspace(-1, 1, 6).view(3, 2), torch.linspace(0, 1, 8).view(4, 2)

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith("2.15"), reason="the table is of PyTorch 2.15"
)


class Product(nn.Module):
    """A product whose sparse matrix is a parameter, or has one for its values."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        made = {"CSR": DENSE.to_sparse_csr, "COO": DENSE.to_sparse}.get(kind)
        self.weight = nn.Parameter(made() if made else values_of(DENSE.to_sparse_csr()).clone())

    def forward(self):
        if self.kind == "values":
            return PATTERN.mm(self.weight, B)
        return spgrad.sparse_mm(self.weight, B)


class MaskedProduct(nn.Module):
    """The same by a dense matrix, whose gradient is masked."""

    def __init__(self, _kind):
        super().__init__()
        self.weight = nn.Parameter(DENSE.clone())
        self.weight.register_hook(lambda gradient: gradient * (DENSE != 0))

    def forward(self):
        return self.weight @ B


def values_of(matrix):
    if matrix.layout == torch.sparse_coo:
        return matrix.detach().coalesce().values()
    return matrix.detach().values() if matrix.layout == torch.sparse_csr else matrix.detach()


def backward(product):
    loss = (product() - TARGET).square().sum()
    loss.backward()
    return loss


def optimiser(name, **options):
    def check(kind):
        trained = []
        for product in (Product(kind), MaskedProduct(kind)):
            steps = getattr(torch.optim, name)(product.parameters(), **options)
            for _ in range(3):
                steps.zero_grad()
                steps.step(lambda p=product: backward(p))  # for L-BFGS, which ends by itself
            trained.append(product.weight)
        expected = trained[1].detach()[DENSE != 0]
        torch.testing.assert_close(values_of(trained[0]), expected, rtol=1e-4, atol=1e-5)

    return check


def on_gradient(change, expected):
    def check(kind):
        product = Product(kind)
        backward(product)
        before = values_of(product.weight.grad).clone()
        found = change(product.weight)
        after = values_of(product.weight.grad) if found is None else found
        torch.testing.assert_close(after, expected(before))

    return check


def scaled_step(kind):
    product, other = Product(kind), Product("values")
    scaler = torch.amp.GradScaler("cpu")
    steps = torch.optim.SGD(product.parameters(), lr=0.1)
    scaler.scale((product() - TARGET).square().sum()).backward()
    scaler.step(steps)
    backward(other)
    torch.testing.assert_close(
        values_of(product.weight), (other.weight - 0.1 * other.weight.grad).detach()
    )


def assert_gradient(product):
    expected = MaskedProduct(product.kind)
    backward(expected)
    torch.testing.assert_close(values_of(product.weight.grad), expected.weight.grad[DENSE != 0])


def under_anomaly_mode(kind):
    product = Product(kind)
    with torch.autograd.detect_anomaly(check_nan=True):
        backward(product)
    assert_gradient(product)


def in_data_parallel(kind):
    product = Product(kind)
    backward(nn.parallel.DistributedDataParallel(product))
    assert_gradient(product)


def copied(kind):
    product = Product(kind)
    other = copy.deepcopy(product)
    backward(other)
    assert product.weight.grad is None
    assert_gradient(other)


def saved_and_loaded(kind):
    product, other = Product(kind), Product(kind)
    with torch.no_grad():
        other.weight.mul_(2)
    assert not values_of(other.weight).equal(values_of(product.weight))
    other.load_state_dict(through_a_file(product.state_dict(), weights_only=True))
    assert values_of(other.weight).equal(values_of(product.weight))


def twice(kind):
    product, once = Product(kind), Product("values")
    for each in (product, product, once):
        backward(each)
    torch.testing.assert_close(values_of(product.weight.grad), 2 * once.weight.grad)


def sgd(kind):
    for options in ({}, {"momentum": 0.9}, {"weight_decay": 0.1}):
        optimiser("SGD", lr=0.1, **options)(kind)


CHECKS = {
    "`SGD`, with momentum or weight decay": sgd,
    "`Adam`": optimiser("Adam"),
    "`AdamW`": optimiser("AdamW"),
    "`RMSprop`": optimiser("RMSprop"),
    "`Adagrad`": optimiser("Adagrad"),
    "`LBFGS`": optimiser("LBFGS", max_iter=2),
    "`SparseAdam`": optimiser("SparseAdam"),
    "`clip_grad_norm_`": on_gradient(
        lambda weight: nn.utils.clip_grad_norm_([weight], 0.1) and None,
        lambda gradient: gradient / gradient.norm() * 0.1,
    ),
    "`clip_grad_value_`": on_gradient(
        lambda weight: nn.utils.clip_grad_value_([weight], 0.1),
        lambda gradient: gradient.clamp(-0.1, 0.1),
    ),
    "`A.grad.norm()`": on_gradient(lambda weight: weight.grad.norm(), torch.norm),
    "`torch.amp.GradScaler`": scaled_step,
    "`detect_anomaly`": under_anomaly_mode,
    "`DistributedDataParallel`": in_data_parallel,
    "`copy.deepcopy`": copied,
    "`state_dict`, `load_state_dict`": saved_and_loaded,
    "gradients of several backward passes": twice,
}
ROWS = [
    (name, *answers)
    for names, *answers in re.findall(
        r"^\| ([^|]+) \| (yes|no) \| (yes|no) \| (yes|no) \|$", PAGE, re.MULTILINE
    )
    for name in (names.split(", ") if names == "`Adam`, `AdamW`" else [names])
]


def test_the_table_has_all_rows():
    assert [row[0] for row in ROWS] == list(CHECKS)


@pytest.mark.usefixtures("group_of_one_process")
@pytest.mark.parametrize("place", [1, 2, 3], ids=["CSR", "COO", "values"])
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.filterwarnings(
    "ignore:Anomaly Detection has been enabled", "ignore:Validating sparse tensor invariants"
)
def test_the_table_is_true(row, place):
    check, kind = CHECKS[row[0]], ("CSR", "COO", "values")[place - 1]
    if row[place] == "yes":
        check(kind)
    else:
        with pytest.raises((RuntimeError, ValueError)):
            check(kind)
