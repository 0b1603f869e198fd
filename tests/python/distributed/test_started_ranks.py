"""Ranks in processes of their own, as users start them: an example, and links that are counted."""

import os
import subprocess

import pytest

from benchmarks.distributed import network, validate
from benchmarks.distributed.namespaces import namespaces
from examples.colours.__main__ import main


@pytest.mark.long
def test_four_ranks_of_torchrun_agree_with_one_process(tmp_path):
    main(["--quick", "--output", str(tmp_path)])
    assert (tmp_path / "colours.png").stat().st_size > 10_000


@pytest.mark.long
def test_links_carry_the_rows_that_are_needed_and_little_else():
    try:
        with namespaces(1, "1gbit"):
            pass
    except SystemExit as reason:
        pytest.skip(f"{reason}")
    told = network.measure(2, "1gbit", ["--rounds", "1", "--shrink", "5"])
    needed = 2 * sum(rank["halo"] for rank in told)
    counted = sum(rank["over_link"] for rank in told)
    # One layer of 50 × 49 nodes from either rank, forward and backward, of 128 columns.
    assert needed == 2 * 2 * 50 * 49 * 128 * 4
    assert needed <= counted < 1.05 * needed
    text = network.report(told)
    assert "composed" in text
    assert f"{needed / 1e6:.2f} MB" in text
    step = max(rank["seconds"]["RowSharded"] for rank in told)
    assert 0.3 * step < validate.modelled(told, 128) < 3 * step  # whatever else the machine does
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"spgrad{os.getpid()}" not in left.stdout


def test_without_root_a_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="network namespaces need root"):
        network.measure(2, "1gbit", [])
