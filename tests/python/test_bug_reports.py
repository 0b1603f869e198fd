"""``python -m spgrad.info``, which reports of bugs ask for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spgrad
from spgrad import info


def facts():
    return dict(line.split(None, 1) for line in info.report().splitlines())


def test_the_command_prints_what_is_installed():
    printed = subprocess.run(
        [sys.executable, "-m", "spgrad.info"], check=True, capture_output=True, text=True
    ).stdout
    assert printed.startswith(f"spgrad            {spgrad.__version__} in ")
    assert f"torch             {torch.__version__.partition('+')[0]}" in printed
    assert f"in use: {spgrad.instruction_set()}" in printed


def test_compiler_and_pytorch_of_the_build_are_named():
    series = ".".join(torch.__version__.split(".")[:2])
    compiler = facts()["built"].removeprefix(f"for PyTorch {series}.").partition(" by ")[2]
    assert compiler.split()[0] in {"GNU", "Clang"}
    assert compiler.split()[1][0].isdigit()


def test_settings_are_shown_and_the_home_directory_is_not(monkeypatch):
    home = str(Path(spgrad.__file__).parents[1])
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("SPGRAD_CACHE", f"{home}/kernels")
    assert "SPGRAD_CACHE=~/kernels" in facts()["settings"]
    assert facts()["spgrad"].endswith(" in ~/spgrad")
    assert home not in info.report()


@pytest.mark.parametrize("home", ["/", "", "/home/al"])
def test_no_path_names_the_user_or_the_host(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("platform.node", lambda: "host7.org")
    monkeypatch.setenv("SPGRAD_CACHE", "/scratch/alice/host7.org/k:/home/alice2:/x/home/al/y")
    assert "SPGRAD_CACHE=/scratch/USER/HOST/k:/home/alice2:/x/home/al/y" in facts()["settings"]
    assert facts()["spgrad"].endswith(f" in {Path(spgrad.__file__).parent}")


def test_a_user_may_have_no_name(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: {}["uid"])
    assert facts()["torch"]


def test_the_host_is_not_named():
    assert os.uname().nodename not in info.report().split()
