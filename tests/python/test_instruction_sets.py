"""Instruction sets, threads, and that both leave results alone."""

import os
import subprocess
import sys

import pytest
import torch
from oracle import (
    DTYPES,
    KINDS,
    assert_dense,
    assert_gradients,
    dense_for,
    make_sparse,
    output_gradient_for,
    product,
    values_of,
)

import spgrad


def test_the_list_of_instruction_sets_ends_with_the_baseline():
    names = spgrad.instruction_sets()
    assert names[-1] == "baseline"
    assert set(names) <= {"avx512", "avx2", "baseline"}
    assert spgrad.instruction_set() in names


def test_the_chosen_instruction_set_is_in_use(instruction_set):
    assert spgrad.instruction_set() == instruction_set


@pytest.mark.parametrize("name", ["", "sse9", "AVX2", "baseline "])
def test_an_unknown_instruction_set_is_refused_with_the_choices(name):
    before = spgrad.instruction_set()
    message = f"instruction set must be one of '.*baseline' on this CPU, but received '{name}'"
    with pytest.raises(ValueError, match=message):
        spgrad.use_instruction_set(name)
    assert spgrad.instruction_set() == before


def in_new_process(name):
    """Ask a new process, with the environment variable set, for its instruction set."""
    program = (
        "import spgrad\ntry: print(spgrad.instruction_set())\nexcept ValueError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"SPGRAD_INSTRUCTION_SET": name},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_environment_variable_chooses_from_the_start():
    assert in_new_process("baseline") == "baseline"


def test_a_wrong_environment_variable_is_named():
    outcome = in_new_process("wrong")
    assert outcome.startswith("SPGRAD_INSTRUCTION_SET must be one of ")
    assert outcome.endswith("but received 'wrong'")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_instruction_set_gives_the_right_numbers(instruction_set, kind, dtype):
    assert spgrad.instruction_set() == instruction_set
    for p in (1, 3, 4, 8, 13, 16, 37, 128, 131):
        A = make_sparse(kind, (7, 11), dtype=dtype, seed=p).requires_grad_()
        B, G = dense_for(A, p).requires_grad_(), output_gradient_for(A, p)
        C = spgrad.sparse_mm(A, B)
        assert_dense(C, product(A, B))
        C.backward(G)
        assert_gradients(A, B, G)


def everything(multiply, A, B, G):
    """Compute the product and all gradients, together and alone; A is sparse, or its values."""
    A = A.detach().requires_grad_()
    B = B.detach().requires_grad_()
    C = multiply(A, B)
    of_A, of_B = torch.autograd.grad(C, (A, B), G)
    (of_A_alone,) = torch.autograd.grad(multiply(A, B.detach()), A, G)
    (of_B_alone,) = torch.autograd.grad(multiply(A.detach(), B), B, G)
    if A.layout != torch.strided:
        of_A, of_A_alone = values_of(of_A), values_of(of_A_alone)
    return [C.detach(), of_A, of_B, of_A_alone, of_B_alone]


LARGE = [
    pytest.param((3000, 2000), 60_000, id="many rows"),
    pytest.param((3, 20_000), 40_000, id="long rows"),
    pytest.param((20_000, 3), 40_000, id="long columns"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("size", "entries"),
    [*LARGE, pytest.param((2, 500, 400), 50_000, id="batched")],
)
@pytest.mark.parametrize("kind", ["coalesced", "uncoalesced", "csr32"])
def test_the_number_of_threads_does_not_change_a_bit(set_threads, kind, size, entries, dtype):
    A = make_sparse(kind, size, entries, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    for tensor in (values_of(A), B := dense_for(A, 20), G := output_gradient_for(A, 20)):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    set_threads(1)
    single = everything(spgrad.sparse_mm, A, B, G)
    for threads in (2, 2, 5):
        set_threads(threads)
        for ours, theirs in zip(everything(spgrad.sparse_mm, A, B, G), single, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["uncoalesced", "csr32"])
def test_instruction_sets_differ_by_no_more_than_rounding(kind, instruction_set):
    A = make_sparse(kind, (300, 9000), 30_000, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    for tensor in (values_of(A), B := dense_for(A, 20), G := output_gradient_for(A, 20)):
        tensor.copy_(torch.rand(tensor.shape, generator=generator))
    spgrad.use_instruction_set("baseline")
    baseline = everything(spgrad.sparse_mm, A, B, G)
    spgrad.use_instruction_set(instruction_set)
    for ours, theirs in zip(everything(spgrad.sparse_mm, A, B, G), baseline, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
