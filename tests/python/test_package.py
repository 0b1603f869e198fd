"""The package around the products: its examples, its names, its refusal of another PyTorch."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import spgrad
from spgrad import _library

MODULES = sorted(f"spgrad.{module.name}" for module in pkgutil.iter_modules(spgrad.__path__))


@pytest.mark.parametrize("name", ["spgrad", *MODULES])
def test_the_examples_of_the_documentation_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize(("module", "count"), [("_products", 3), ("_instruction_sets", 3)])
def test_every_public_function_has_an_example(module, count):
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = finder.find(importlib.import_module(f"spgrad.{module}"))
    assert sum(1 for test in tests if test.examples) == count


def test_everything_public_exists():
    assert sorted(spgrad.__all__) == spgrad.__all__
    for name in spgrad.__all__:
        assert hasattr(spgrad, name)
    assert spgrad.__version__.count(".") == 2


def test_another_series_of_pytorch_is_refused_before_the_library_is_loaded(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.13.1")
    with pytest.raises(ImportError, match=r"but found PyTorch 1\.13\.1; install spgrad again"):
        _library.load_library()


def test_a_patch_release_of_the_same_series_is_accepted(monkeypatch):
    series = ".".join(torch.__version__.split(".")[:2])
    loaded = []
    monkeypatch.setattr(torch, "__version__", f"{series}.99+cpu")
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    _library.load_library()
    assert len(loaded) == 1
