"""Matrices of SciPy as tensors and back: memory, index dtypes, order, and what is refused."""

import importlib
import re
import sys

import numpy as np
import pytest
import torch
from cases import ALL_KINDS
from oracle import KINDS, PLAIN, assert_dense, integers, make_sparse, to_dense, values_of
from pairs import pairwise
from scipy import sparse
from torch import ones

import spgrad

# Columns in no order, and two entries at one place.
OFFSETS, INDICES, DATA = [0, 3, 3, 5], [3, 0, 3, 2, 1], [1.0, 2.0, 3.0, 4.0, 5.0]
SHAPE = (3, 4)
DENSE = torch.tensor([[2.0, 0, 0, 4], [0, 0, 0, 0], [0, 5, 4, 0]], dtype=torch.float64)
INDEX_DTYPES = (np.int32, np.int64)


def compressed(kind=sparse.csr_array, dtype=np.float64, index=np.int32, offset=None):
    """Make a matrix that is not in SciPy's canonical form, with arrays just as given."""
    shape = SHAPE if "csr" in kind.__name__ else SHAPE[::-1]
    S = kind(shape, dtype=dtype)
    S.data = np.array(DATA, dtype=dtype)
    S.indices, S.indptr = np.array(INDICES, dtype=index), np.array(OFFSETS, dtype=offset or index)
    return S


def parts_of(A):
    """Return offsets, indices and values of a compressed tensor."""
    if A.layout == torch.sparse_csr:
        return A.crow_indices(), A.col_indices(), A.values()
    return A.ccol_indices(), A.row_indices(), A.values()


KEPT = (sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.csc_matrix)


@pairwise(kind=KEPT, dtype=(np.float64, np.float32, np.complex64, np.int64), index=INDEX_DTYPES)
def test_csr_and_csc_share_all_memory_and_keep_index_dtype_and_order(kind, dtype, index):
    S = compressed(kind, dtype, index)
    A = spgrad.from_scipy(S)
    assert A.layout == (torch.sparse_csr if "csr" in kind.__name__ else torch.sparse_csc)
    assert A.shape == S.shape
    for tensor, array in zip(parts_of(A), (S.indptr, S.indices, S.data), strict=True):
        assert np.shares_memory(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
        assert np.array_equal(tensor, array)


def test_products_of_what_is_not_canonical_are_right():
    for S in (compressed(), compressed().tocoo(), compressed(sparse.csc_array)):
        A = spgrad.from_scipy(S)
        A = A.to_sparse_coo() if A.layout == torch.sparse_csc else A
        right = DENSE if A.shape == DENSE.shape else DENSE.T
        B = integers(A.shape[1], 2)
        assert_dense(spgrad.sparse_mm(A, B), right @ B)


@pytest.mark.parametrize("kind", [sparse.coo_array, sparse.coo_matrix])
def test_coo_keeps_its_order_and_values_and_has_int64_indices(kind):
    rows, columns = [2, 0, 2, 0], [1, 3, 1, 0]
    S = kind((np.array(DATA[:4], dtype=np.float32), (rows, columns)), shape=SHAPE)
    A = spgrad.from_scipy(S)
    assert not A.is_coalesced()
    assert A._indices().dtype == torch.int64
    assert A._indices().tolist() == [rows, columns]
    assert np.shares_memory(A._values().numpy(), S.data)
    assert_dense(to_dense(A), torch.from_numpy(S.toarray()))


@pytest.mark.parametrize("kind", ["bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("container", ["array", "matrix"])
def test_other_formats_become_csr(kind, container):
    S = getattr(sparse, f"{kind}_{container}")(DENSE.numpy())
    A = spgrad.from_scipy(S)
    assert A.layout == torch.sparse_csr
    assert_dense(to_dense(A), DENSE)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 4)])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia", "lil", "dok"])
def test_matrices_without_entries_come_and_go(kind, shape):
    A = spgrad.from_scipy(getattr(sparse, f"{kind}_array")(shape))
    assert A.shape == shape
    assert A._nnz() == 0
    S = spgrad.to_scipy(A)
    assert (S.shape, S.nnz) == (shape, 0)


@pytest.mark.parametrize("name", ["indptr", "indices", "data"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x.astype(x.dtype.newbyteorder(">")), id="big-endian"),
        pytest.param(lambda x: np.repeat(x, 2)[::2], id="with gaps"),
        pytest.param(lambda x: x[::-1].copy()[::-1], id="backwards"),
        pytest.param(lambda x: np.frombuffer(x.tobytes(), x.dtype), id="read-only"),
        pytest.param(lambda x: np.frombuffer(b" " + x.tobytes(), x.dtype, offset=1), id="odd"),
    ],
)
def test_arrays_that_cannot_be_shared_are_copied(name, change):
    S = compressed()
    setattr(S, name, change(getattr(S, name)))
    A = spgrad.from_scipy(S)
    before = [tensor.clone() for tensor in parts_of(A)]
    for tensor, right in zip(before, (OFFSETS, INDICES, DATA), strict=True):
        assert tensor.tolist() == right
    parts_of(A)[("indptr", "indices", "data").index(name)].fill_(0)
    array = getattr(S, name)
    assert np.array_equal(array, {"indptr": OFFSETS, "indices": INDICES, "data": DATA}[name])


@pytest.mark.parametrize(("index", "offset"), [(np.int32, np.int64), (np.int64, np.int32)])
def test_offsets_take_the_dtype_of_indices_which_are_not_copied(index, offset):
    S = compressed(index=index, offset=offset)
    A = spgrad.from_scipy(S)
    assert np.shares_memory(A.col_indices().numpy(), S.indices)
    assert A.crow_indices().dtype == A.col_indices().dtype
    assert_dense(to_dense(A), DENSE)
    S.indptr[1] = 2 if offset == np.int32 else 2**32 + 3
    if offset == np.int64:
        with pytest.raises(RuntimeError, match="crow_indices must not decrease"):
            spgrad.sparse_mm(spgrad.from_scipy(S), ones(4, 1).double())


def test_arrays_may_be_longer_than_the_matrix():
    S = compressed()
    S.indices = np.append(S.indices, [77, 77]).astype(np.int32)
    S.data = np.append(S.data, [7.0, 7.0])
    assert_dense(to_dense(spgrad.from_scipy(S)), DENSE)


@pytest.mark.parametrize(("name", "place", "bad"), [("indices", 1, 4), ("indptr", 1, 9)])
def test_bad_indices_of_scipy_are_refused_by_products(name, place, bad):
    S = compressed()
    getattr(S, name)[place] = bad
    with pytest.raises(RuntimeError, match=r"must (be in|not decrease)"):
        spgrad.sparse_mm(spgrad.from_scipy(S), ones(4, 1).double())


@pytest.mark.parametrize(
    ("S", "error", "message"),
    [
        (np.eye(3), ValueError, "S must be a SciPy sparse matrix or array, but received ndarray"),
        (ones(3), ValueError, "S must be a SciPy sparse matrix or array, but received Tensor"),
        (sparse.coo_array(np.ones(3)), ValueError, "S must have shape (n, m), but received (3,)"),
        (sparse.csr_array(np.ones(3)), ValueError, "S must have shape (n, m), but received (3,)"),
        (sparse.coo_array(np.ones((2, 2, 2))), ValueError, "S must have shape (n, m), but receiv"),
        (sparse.csr_array(np.eye(2, dtype=np.longdouble)), RuntimeError, "S must be float32, floa"),
        (sparse.csr_array(np.eye(2, dtype=np.uint16)), RuntimeError, "S must be float32, float64,"),
    ],
)
def test_what_is_no_such_matrix_is_refused(S, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        spgrad.from_scipy(S)


@pairwise(kind=KINDS, dtype=(torch.float32, torch.complex128, torch.int16, torch.bool))
def test_tensors_become_arrays_on_the_same_memory(kind, dtype):
    A = make_sparse(kind, PLAIN, dtype=dtype)
    S = spgrad.to_scipy(A)
    if A.layout == torch.sparse_coo:
        arrays, tensors = (*S.coords, S.data), (*A._indices(), A._values())
    else:
        arrays, tensors = (S.indptr, S.indices, S.data), parts_of(A)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert np.shares_memory(array, tensor.numpy())
        assert array.dtype == tensor.numpy().dtype
    if dtype != torch.bool:  # of which SciPy adds duplicates in its own way
        assert np.array_equal(S.toarray(), to_dense(A))
        assert np.array_equal(S.tocsc().tocoo().toarray(), to_dense(A))
    back = spgrad.from_scipy(S)
    assert back.layout == A.layout
    assert torch.equal(values_of(back), values_of(A))


def test_csc_tensors_become_csc_arrays():
    S = spgrad.to_scipy(DENSE.to_sparse_csc())
    assert isinstance(S, sparse.csc_array)
    assert np.array_equal(S.toarray(), DENSE)


def test_lazy_conjugates_and_odd_strides_are_what_they_stand_for():
    indices = torch.tensor([[0, 1], [2, 0]]).T.contiguous().T
    values = torch.tensor([1 + 2j, 3 - 1j, 0, 0])[::2].conj()
    S = spgrad.to_scipy(torch.sparse_coo_tensor(indices, values, (2, 3)))
    assert S.toarray().tolist() == [[0, 0, 1 - 2j], [0, 0, 0]]


@ALL_KINDS
def test_bad_indices_do_not_reach_scipy(kind):
    A = make_sparse(kind, PLAIN)
    held = A._indices()[1] if A.layout == torch.sparse_coo else A.col_indices()
    held[3] = 5
    with pytest.raises(RuntimeError, match=r"must be in \[0, 5\), but received 5 at position 3"):
        spgrad.to_scipy(A)


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (None, ValueError, "A must be a torch.Tensor, but received NoneType"),
        (ones(2, 3), ValueError, "A must be a sparse COO, CSR or CSC tensor, but received torch.s"),
        (ones(2, 3, 4).to_sparse(), ValueError, "A must have shape (n, m) and only sparse"),
        (ones(2, 3, 4).to_sparse_csr(), ValueError, "A must have shape (n, m) and only sparse"),
        (ones(2, 3).to_sparse(1), ValueError, "A must have shape (n, m) and only sparse"),
        (ones(2, 3).half().to_sparse(), RuntimeError, "A must be float32, float64, complex64"),
        (ones(2, 3).bfloat16().to_sparse_csr(), RuntimeError, "A must be float32, float64, comp"),
        (ones(2, 3).to_sparse().to("meta"), RuntimeError, "A must be on the CPU, but received m"),
        (ones(2, 3).to_sparse().requires_grad_(), RuntimeError, "A must not require a gradient"),
    ],
)
def test_tensors_that_scipy_does_not_take_are_refused(A, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        spgrad.to_scipy(A)


def test_another_default_device_changes_nothing():
    S = compressed()
    with torch.device("meta"):
        A = spgrad.from_scipy(S)
        for tensor in (A, A.to_sparse_csc(), A.to_sparse_coo()):
            assert (spgrad.to_scipy(tensor).toarray() == DENSE.numpy()).all()


def test_scipy_is_imported_by_these_functions_alone(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    module = importlib.reload(importlib.import_module("spgrad._scipy"))
    for call in (module.from_scipy, module.to_scipy):
        with pytest.raises(ImportError, match="scipy"):
            call(ones(2, 3).to_sparse())
