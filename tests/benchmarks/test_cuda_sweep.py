"""The sweep over constants of the CUDA kernels, as far as it goes without a GPU."""

import shutil
import subprocess

import pytest

from benchmarks.kernels.cuda_sweep import __main__ as sweep
from benchmarks.kernels.cuda_sweep import compiler, variants


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a compiler")
def test_structs_have_the_sizes_that_a_compiler_gives_them(tmp_path):
    structs = compiler.read_structs(compiler.sources({})["arguments.h"])
    assert {"Status", "Product", "Find", "Sort", "Offsets", "Mirror"} <= set(structs)
    source = tmp_path / "sizes.cpp"
    source.write_text('#include "arguments.h"\n' + compiler.size_checks(structs))
    command = ["c++", "-std=c++20", "-fsyntax-only", f"-I{compiler.KERNELS}", source]
    subprocess.run(command, check=True)


def test_every_constant_that_is_varied_is_one_of_the_kernels():
    for variant in variants.all_variants():
        constants = compiler.constants_of(compiler.sources(dict(variant.constants)))
        assert constants.items() >= dict(variant.constants).items()
        tile = constants["kSortThreads"] * constants["kSortRounds"]  # 12 bytes for each entry
        digits = 1 << constants["kDigitBits"]
        assert 12 * tile + 4 * digits + 8 * constants["kSortThreads"] // 32 <= 48 << 10
    with pytest.raises(ValueError, match="kNothing once, but has it 0 times"):
        compiler.sources({"kNothing": 1})


def test_a_variant_compiles_and_has_grids(capsys, monkeypatch):
    try:
        compiler.open_nvrtc()
    except OSError:
        pytest.skip("needs NVRTC")
    monkeypatch.setattr(sweep, "all_variants", lambda: [variants.Variant("mirror")])
    sweep.main(["--dry", "--size", "tiny"])
    printed = capsys.readouterr().out
    assert "not compiled" not in printed
    assert "1 variants for sm_90 compiled" in printed
    assert "mirror 2×1×256, sort_count 2×1×256, sort_scan 8×1×1024, sort_move 1×1×256" in printed
    assert "sort_offsets 2×1×256" in printed
