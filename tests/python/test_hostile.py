"""Spoiled structures of all sorts, with the exact error that each deserves."""

import hostile
import pytest
from programs import run_python


@pytest.mark.parametrize("examples", [500, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("form", ["csr", "coo"])
def test_structures_are_multiplied_or_refused_with_their_first_fault(backend, form, examples):
    # glibc fills memory that was freed or never written with a pattern, which makes reading it
    # show.
    done = run_python(hostile.__file__, form, backend, examples, MALLOC_PERTURB_="165")
    cases = done.stdout.splitlines()
    assert done.returncode == 0, f"at {cases[-1:]}: {done.stderr[-4000:]}"
    # Hypothesis tried what it was asked to, of which a good part is sound and a good part is not.
    assert len(cases) >= examples // 2
    sound = sum(case.endswith(": None") for case in cases)
    assert len(cases) // 5 < sound < len(cases) * 4 // 5
