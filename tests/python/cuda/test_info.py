"""What spgrad.cuda tells, and the cache that it fills, with or without a device."""

import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch

import spgrad
from spgrad import _library

HAS_NVRTC = spgrad.cuda.info().nvrtc is not None
needs_nvrtc = pytest.mark.skipif(not HAS_NVRTC, reason="this PyTorch brings no NVRTC")


def command_line(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "spgrad.cuda", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_info_names_nvrtc_and_says_where_nothing_can_run():
    info = spgrad.cuda.info()
    assert (info.nvrtc is None) == (info.architectures == ())
    assert info.library
    assert (info.unavailable is None) == bool(info.devices)
    assert info.compiled + info.read >= info.loaded >= 0
    for device in info.devices:
        assert device.architecture.startswith("sm_")
    assert str(info).startswith("NVRTC ")


@pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch without CUDA")
@needs_nvrtc
def test_nvrtc_is_that_of_pytorch():
    assert spgrad.cuda.info().nvrtc == torch.version.cuda


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs binutils")
def test_the_library_is_linked_with_nothing_of_cuda():
    done = subprocess.run(
        ["readelf", "-d", _library.library_path()], capture_output=True, text=True, check=True
    )
    needed = re.findall(r"NEEDED.*\[(.*)\]", done.stdout)
    assert any(name.startswith("libtorch_cpu") for name in needed)
    assert not [name for name in needed if re.search("cuda|nvrtc", name)]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SPGRAD_CACHE", str(tmp_path))
    assert spgrad.cuda.info().cache == tmp_path


@needs_nvrtc
def test_precompile_fills_a_folder_once(tmp_path):
    folder = tmp_path / "new" / "kernels"
    names = torch.ops.spgrad._cuda_kernels([torch.float32])[:1]
    architecture = spgrad.cuda.info().architectures[-1]
    counts = [torch.ops.spgrad._cuda_precompile(architecture, names, str(folder)) for _ in "ab"]
    assert counts == [len(names), 0]
    assert len(list(folder.glob("*.kernel"))) == len(names)


@pytest.mark.parametrize("index", ["int", "long long"])
def test_kernels_are_precompiled_for_both_index_dtypes_of_csr(index):
    names = torch.ops.spgrad._cuda_kernels([torch.float32])
    assert f"spgrad::cuda::find_pieces<{index}>" in names
    assert f"spgrad::cuda::check_csr<{index}>" in names
    for step in ("sort_count", "sort_move"):
        assert f"spgrad::cuda::{step}<spgrad::cuda::ByColumnOfCsr<{index}, int>>" in names
    for role in ("true, false", "false, true"):  # sums, products
        shape = f"spgrad::cuda::multiply<spgrad::cuda::Shape<float, float, {index}, unsigned, "
        for vector in (1, 2, 4):  # numbers that are loaded at once, by p and alignment
            start = f"{shape}false, {role}, {vector}, "
            assert any(name.startswith(start) for name in names)


@needs_nvrtc
def test_precompile_refuses_an_architecture_that_nvrtc_does_not_know(tmp_path):
    done = command_line("precompile", "--arch", "sm_1", "--output", tmp_path)
    assert done.returncode == 1
    assert "python -m spgrad.cuda: arch must be one that NVRTC" in done.stderr
    assert "but received 'sm_1'" in done.stderr
    assert "Traceback" not in done.stderr


@needs_nvrtc
def test_precompile_refuses_every_unknown_architecture_before_it_compiles(tmp_path):
    architecture = spgrad.cuda.info().architectures[-1]
    done = command_line(
        "precompile", "--arch", architecture, "--arch", "sm_1", "--output", tmp_path
    )
    assert done.returncode == 1
    assert "but received 'sm_1'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(bool(spgrad.cuda.info().devices), reason="needs a machine without a device")
def test_precompile_needs_an_architecture_where_there_is_no_device():
    done = command_line("precompile")
    assert done.returncode == 2
    assert "--arch must name an architecture where no CUDA device" in done.stderr


@needs_nvrtc
def test_precompile_refuses_a_folder_that_cannot_be_written():
    names = torch.ops.spgrad._cuda_kernels([torch.float32])[:1]
    if not names:
        pytest.skip("no kernels")
    architecture = spgrad.cuda.info().architectures[-1]
    with pytest.raises(RuntimeError, match="but '/proc/kernels' cannot"):
        torch.ops.spgrad._cuda_precompile(architecture, names, "/proc/kernels")


def test_the_command_line_shows_the_info(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spgrad.cuda", "info"])
    # Python warns of a module that was imported before it is run, as other tests may have done.
    monkeypatch.delitem(sys.modules, "spgrad.cuda.__main__", raising=False)
    runpy.run_module("spgrad.cuda", run_name="__main__")
    assert "kernels   " in capsys.readouterr().out


def test_check_finds_nothing_wrong():
    spgrad.cuda.check()


def test_check_refuses_other_devices():
    with pytest.raises(ValueError, match="must be a CUDA device, but received cpu"):
        spgrad.cuda.check("cpu")


def test_checks_at_once_are_set_and_put_back():
    before = spgrad.cuda.check_at_once(True)
    assert spgrad.cuda.check_at_once(before) is True
    assert spgrad.cuda.check_at_once(before) is before
    for wrong in (None, 1, "yes"):
        with pytest.raises(ValueError, match=f"must be True or False, but received {wrong!r}"):
            spgrad.cuda.check_at_once(wrong)
