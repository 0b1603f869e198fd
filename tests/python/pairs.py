"""Fewer cases than all combinations: each two values of different parameters meet in one of them.

A mistake that needs two certain values, a dtype and an instruction set, say, is found as by all
combinations. One that needs three may be missed: parameters that one code path reads together are
given as one parameter, or a test of their own has all of their combinations.
"""

from itertools import combinations, product

import pytest
import torch


def name_of(value):
    """Name a value in the name of a test."""
    if isinstance(value, tuple) and all(isinstance(extent, int) for extent in value):
        return "batched" if len(value) == 3 else "x".join(map(str, value)) or "scalar"
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return getattr(value, "__name__", str(value)).replace("_", " ")


def choose(columns):
    """Choose combinations of one index a column until all pairs have met, always the same ones.

    The next is the one with the most pairs that have not met, the first of several.
    """

    def pairs_of(case):
        return set(combinations(enumerate(case), 2))

    left = {case: pairs_of(case) for case in product(*(range(len(column)) for column in columns))}
    unmet = set().union(*left.values())
    chosen = []
    while unmet:
        best = max(left, key=lambda case: len(left[case]))
        unmet -= left.pop(best)
        met = pairs_of(best)
        left = {case: rest for case, pairs in left.items() if (rest := pairs - met)}
        chosen.append(best)
    return sorted(chosen)


def pairwise(**values):
    """Parametrise a test by names of parameters and their values, so that all pairs meet."""
    columns = [tuple(column) for column in values.values()]
    cases = []
    for indices in choose(columns):
        case = [column[i] for column, i in zip(columns, indices, strict=True)]
        cases.append(pytest.param(*case, id="-".join(map(name_of, case))))
    return pytest.mark.parametrize(tuple(values), cases)
