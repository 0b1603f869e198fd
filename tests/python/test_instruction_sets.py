"""Instruction sets, threads, and that both leave results alone."""

import re

import pytest
import torch
from cases import BOTH_FORMS, LARGE, LAYOUTS
from forms import all_results, assert_leaves_right, assert_right, fill, leaves
from oracle import (
    DTYPES,
    KINDS,
    dense_for,
    make_sparse,
    output_gradient_for,
    values_of,
)
from pairs import pairwise
from programs import output_of, run

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


def test_the_environment_variable_chooses_from_the_start():
    program = "print(spgrad.instruction_set())"
    assert output_of(program, SPGRAD_INSTRUCTION_SET="baseline") == ["baseline"]


def test_a_wrong_environment_variable_is_an_error_at_import():
    done = run("", SPGRAD_INSTRUCTION_SET="wrong")
    message = r"SPGRAD_INSTRUCTION_SET must be one of .* on this CPU, but received 'wrong'"
    assert re.search("ValueError: " + message, done.stderr)
    assert 'File "<string>", line 3' in done.stderr  # import spgrad


@pairwise(instruction_set=spgrad.instruction_sets(), kind=KINDS, dtype=DTYPES)
def test_every_instruction_set_gives_the_right_numbers(
    use_instruction_set, instruction_set, kind, dtype
):
    use_instruction_set(instruction_set)
    for p in (1, 3, 4, 8, 13, 16, 37, 128, 131):
        A, B, G = leaves(kind, (7, 11), p=p, dtype=dtype, seed=p)
        assert_leaves_right(A, B, G)
        A = A.detach()
        assert_right(spgrad.Pattern(A).mm, A, (values_of(A).clone(), B.detach(), G))


SHARED = {**LARGE, "batched": ((2, 500, 400), 50_000)}


@pairwise(kind=LAYOUTS, shape=SHARED, dtype=DTYPES)
def test_the_number_of_threads_does_not_change_a_bit(set_threads, kind, shape, dtype):
    A = make_sparse(kind, *SHARED[shape], dtype=dtype)
    B, G = dense_for(A, 20), output_gradient_for(A, 20)
    fill(torch.randn, values_of(A), B, G)
    set_threads(1)
    single = all_results(spgrad.sparse_mm, A, B, G)
    for threads in (2, 2, 5):
        set_threads(threads)
        for ours, theirs in zip(all_results(spgrad.sparse_mm, A, B, G), single, strict=True):
            assert torch.equal(ours, theirs)


@BOTH_FORMS
def test_instruction_sets_differ_by_no_more_than_rounding(kind, instruction_set):
    A = make_sparse(kind, (300, 9000), 30_000, dtype=torch.float32)
    B, G = dense_for(A, 20), output_gradient_for(A, 20)
    fill(torch.rand, values_of(A), B, G)
    spgrad.use_instruction_set("baseline")
    baseline = all_results(spgrad.sparse_mm, A, B, G)
    spgrad.use_instruction_set(instruction_set)
    for ours, theirs in zip(all_results(spgrad.sparse_mm, A, B, G), baseline, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
