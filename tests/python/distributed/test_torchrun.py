"""What torchrun starts: ranks that agree with one process, and ranks that are started again."""

import pytest

from examples.colours.__main__ import main


@pytest.mark.long
def test_four_ranks_of_torchrun_agree_with_one_process(tmp_path):
    main(["--quick", "--output", str(tmp_path)])
    assert (tmp_path / "colours.png").stat().st_size > 10_000
