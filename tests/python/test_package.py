"""The package around the products: its examples, its names, its refusal of another PyTorch."""

import doctest
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest
import torch

import spgrad
from spgrad import _library

MODULES = ["spgrad", *(module.name for module in pkgutil.walk_packages(spgrad.__path__, "spgrad."))]
PUBLIC_MODULES = [name for name in MODULES if "._" not in name]


# Their examples make checkpoints.
OF_PYTORCH_2_15 = ("spgrad.distributed._row_sharded", "spgrad.distributed._training_state")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_documentation_are_true(name):
    if name in OF_PYTORCH_2_15:
        pytest.importorskip("torch.distributed.checkpoint.protocol", reason="needs PyTorch 2.15")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def public_names():
    """List the functions and classes that the public modules name, and what classes add to them."""
    for module in map(importlib.import_module, PUBLIC_MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing):
                continue
            yield pytest.param(thing, True, id=f"{module.__name__}.{name}")
            for member, value in vars(thing).items() if inspect.isclass(thing) else ():
                if member.startswith("_") or inspect.ismemberdescriptor(value):
                    continue
                is_new = not any(hasattr(base, member) for base in thing.__bases__)
                yield pytest.param(
                    value, is_new and callable(value), id=f"{module.__name__}.{name}.{member}"
                )


@pytest.mark.parametrize(("thing", "needs_example"), list(public_names()))
def test_everything_public_is_documented(thing, needs_example):
    text = inspect.getdoc(thing) or ""
    assert text.partition("\n\n")[0].rstrip().endswith(".")
    # Sphinx takes what precedes a colon there for a type.
    typed = text if isinstance(thing, property) else text.partition("Returns:\n")[2]
    assert ":" not in re.sub(r":\w+:`[^`]*`|``[^`]*``", "", typed.partition("\n")[0])
    if not needs_example:  # a property, or a method that the class takes over from its base
        return
    assert doctest.DocTestParser().get_examples(text)
    if inspect.isclass(thing) and issubclass(thing, Exception):  # which only the package makes
        return
    parameters = [name for name in inspect.signature(thing).parameters if name != "self"]
    described = re.findall(r"^    (\w+):", text.partition("Args:\n")[2], re.MULTILINE)
    assert [name for name in described if name in parameters] == parameters
    if not inspect.isclass(thing) and inspect.signature(thing).return_annotation not in (
        None,
        "None",
    ):
        assert "Returns:" in text
    assert not parameters or "Raises:" in text


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_everything_public_exists(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert sorted(module.__all__) == module.__all__
    for public in module.__all__:
        assert hasattr(module, public)


def test_contrib_says_which_package_a_module_needs(monkeypatch):
    for name, package in (("pyg", "torch_geometric"), ("onnx", "onnxscript")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"spgrad.contrib.{name}", raising=False)
    monkeypatch.setattr(spgrad, "contrib", spgrad.contrib)  # as it was, afterwards
    monkeypatch.delitem(sys.modules, "spgrad.contrib")
    imported = {}
    exec("from spgrad.contrib import *", imported)  # noqa: S102 - not allowed in a function
    assert not {"onnx", "pyg"} & set(imported)
    for name, package in (("pyg", "torch_geometric"), ("onnx", "onnxscript")):
        with pytest.raises(
            ModuleNotFoundError, match=f"contrib.{name} needs .*: pip install {package}"
        ):
            importlib.import_module(f"spgrad.contrib.{name}")


def test_the_table_of_the_package_names_all_that_can_be_called():
    called = {name for name in spgrad.__all__ if inspect.isfunction(getattr(spgrad, name))}
    modules = {name.split(".")[1] for name in PUBLIC_MODULES if name.count(".")}
    table = spgrad.__doc__.partition("===")[2].rpartition("===")[0]
    assert set(re.findall(r"``(\w+)``", table)) == called | modules - {"info"} | {"Pattern"}


def test_the_metadata_name_the_series_of_pytorch_that_there_are_libraries_for():
    series = _library.supported_series()
    major, minor = series[-1].split(".")
    (requirement,) = (r for r in importlib.metadata.requires("spgrad") if "extra ==" not in r)
    parts = set(requirement.removeprefix("torch").split(","))
    assert parts == {f">={series[0]}", f"<{major}.{int(minor) + 1}"}


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "cmake")
    return importlib.import_module("spgrad_build")


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("platform", "spgrad supports Linux, but this is"),
        ("compiler", "needs a C++20 compiler (GCC 12 or Clang 14, or newer), but found none"),
        ("torch", "but found none; install torch>=2.11"),
    ],
)
def test_what_a_build_lacks_is_said_in_one_sentence(backend, monkeypatch, lacking, said):
    if lacking == "platform":
        monkeypatch.setattr("sys.platform", "darwin")
    if lacking == "compiler":
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CXX", raising=False)
    if lacking == "torch":
        monkeypatch.setattr(backend, "_torch_version", lambda _settings: "")
    with pytest.raises(SystemExit) as stopped:
        backend.build_wheel("/nowhere")
    assert said in str(stopped.value)


def test_an_sdist_may_be_built_with_any_pytorch_that_is_supported(backend):
    assert backend.dynamic_metadata("dependencies") == ["torch>=2.11"]


def test_the_metadata_name_the_repository_whose_workflow_builds(backend, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert backend.dynamic_metadata("urls") == {}
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/spgrad")
    urls = backend.dynamic_metadata("urls")
    assert urls["Homepage"] == "https://someone.github.io/spgrad/"
    assert urls["Source"] == "https://github.com/someone/spgrad"


def test_the_version_is_there():
    assert spgrad.__version__.count(".") == 2


def test_the_pytorch_that_is_named_is_that_of_the_build(backend, tmp_path):
    header = tmp_path / "include" / "torch" / "headeronly" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 12\n")
    settings = {"cmake.define.LIBTORCH_ROOT": str(tmp_path)}
    requirements = []

    def hook(_folder, _config_settings):
        requirements.extend(backend.dynamic_metadata("dependencies"))

    backend._for_torch_at_hand(hook)("folder", settings)
    assert requirements == ["torch>=2.12,<2.13"]
    assert "torch>=2.11" not in backend.get_requires_for_build_wheel(settings)


def test_another_series_of_pytorch_is_refused_before_the_library_is_loaded(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.13.1")
    said = (
        r"was built for PyTorch 2\.\d+.*, but found PyTorch 1\.13\.1; "
        r".*--no-cache-dir --no-binary spgrad spgrad"
    )
    with pytest.raises(ImportError, match=said):
        _library.load_library()


@pytest.mark.parametrize("version", ["2.11.1", "2.9.0+cpu", "2.10.0a0"])
def test_the_library_is_that_of_the_series(monkeypatch, tmp_path, version):
    for series in ("2.11", "2.9", "2.10"):
        (tmp_path / series / "lib").mkdir(parents=True)
        (tmp_path / series / "lib" / "libspgrad.so").touch()
    monkeypatch.setattr(_library, "_FOLDER", tmp_path)
    monkeypatch.setattr(torch, "__version__", version)
    assert _library.supported_series() == ["2.9", "2.10", "2.11"]
    series = ".".join(version.split(".")[:2])
    assert _library.library_path() == tmp_path / series / "lib" / "libspgrad.so"


def test_a_patch_release_of_the_same_series_is_accepted(monkeypatch):
    series = ".".join(torch.__version__.split(".")[:2])
    loaded = []
    monkeypatch.setattr(torch, "__version__", f"{series}.99+cpu")
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    _library.load_library()
    assert len(loaded) == 1
