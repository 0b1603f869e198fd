"""What README and the pages of the site say is true: their code runs, and what they name is there.

The examples in C++ are those of programs that test_cpp_project.py builds.
"""

import copy
import importlib.util
import json
import pkgutil
import re
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

import spgrad

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/guide").glob("*.md")]
TEXTS = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in sorted(DOCUMENTS)}


def blocks(text, language):
    """Give the code of a page, each block with the number of its first line."""
    for block in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, block.start()) + 1, block[1]


@pytest.mark.parametrize("name", [n for n, text in TEXTS.items() if "```python" in text])
def test_the_code_of_a_page_runs_from_the_first_line_to_the_last(name, monkeypatch, tmp_path):
    if name == "docs/guide/distributed.md":  # which makes a checkpoint
        pytest.importorskip("torch.distributed.checkpoint.protocol", reason="needs PyTorch 2.15")
    monkeypatch.chdir(tmp_path)
    # It takes half a minute, which test_cpp_project.py spends.
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *_, **__: None)
    # The page on several machines, as torchrun starts it for one process.
    rank = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}
    for setting, value in rank.items():
        monkeypatch.setenv(setting, str(value))
    torch.manual_seed(0)
    page = {"__name__": "page"}
    for line, code in blocks(TEXTS[name], "python"):
        exec(compile("\n" * line + code, ROOT / name, "exec"), page)  # noqa: S102


def test_every_page_of_the_guide_has_code():
    pages = {n for n in TEXTS if n.startswith("docs/guide/")} - {"docs/guide/index.md"}
    assert len(pages) >= 6
    assert not [name for name in pages if not any(blocks(TEXTS[name], "python"))]


NAMES = r"`(spgrad\.[a-zA-Z_.]*[a-zA-Z_])[(`]"


@pytest.mark.parametrize("name", [n for n, text in TEXTS.items() if re.search(NAMES, text)])
def test_what_a_page_names_of_spgrad_is_there(name):
    for named in re.findall(NAMES, TEXTS[name]):
        pkgutil.resolve_name(named)


def commands(text):
    """Give the commands in blocks and in the text."""
    for _, block in blocks(text, "shell"):
        yield from block.splitlines()
    yield from re.findall(r"`((?:make|python -m) [^`\n]+)`", text)


TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def targets_of(command):
    return [word for word in command.split()[1:] if "=" not in word]


@pytest.mark.parametrize("name", TEXTS)
def test_the_commands_of_a_page_are_there(name):
    for command in commands(TEXTS[name]):
        words = command.partition("#")[0].split()
        if words[0] == "make":
            assert targets_of(command.partition("#")[0])[0] in TARGETS, command
        elif words[:2] == ["python", "-m"]:
            module = words[2]
            assert importlib.util.find_spec(module), command


def test_the_steps_of_the_workflow_are_targets():
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    steps = re.findall(r"\brun: (.+)", re.sub(r"\$\{\{.*?\}\}", "", text))
    assert len(steps) >= 5
    for step in steps:
        assert step.startswith("make "), step
        assert set(targets_of(step)) <= set(TARGETS), step


def test_the_lines_whose_mutants_are_explained_are_there():
    explained = json.loads((ROOT / "tests/mutation/equivalent.json").read_text())
    for file, reasons in explained.items():
        there = {line.strip() for line in (ROOT / file).read_text().splitlines()}
        lines = chain.from_iterable(reasons.values())
        assert {x if isinstance(x, str) else x[0] for x in lines} <= there, file


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {spgrad.__version__}\n" in citation


def table(text, heading):
    """Give the rows of the tables below a heading: the code in the first cell, and the others."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for line in section.splitlines()[3:]:
        if line.startswith("| `"):
            yield line.split("`")[1]


A, B = torch.eye(3).to_sparse_csr(), torch.ones(3, 2)
INTEGERS = torch.tensor


def step_of_adam(start):
    weight = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.Adam([weight])
    spgrad.sparse_mm(weight, B).sum().backward()
    optimiser.step()


def use_gradient(function):
    weight = A.clone().requires_grad_()
    spgrad.sparse_mm(weight, B).sum().backward()
    function(weight)


MISTAKES = [
    lambda: spgrad.sparse_mm(A.to_sparse_csc(), B),
    lambda: spgrad.sparse_mm(A, B.double()),
    lambda: spgrad.nn.SparseLinear(3, 2)(B.T.double()),
    lambda: spgrad.sparse_mm(A, B.to("meta")),
    lambda: spgrad.sparse_mm(A, torch.ones(4, 2)),
    lambda: spgrad.sparse_mm(A, B[:, 0]),
    lambda: spgrad.sparse_mm(torch.ones(2, 3, 3).to_sparse(), B),
    lambda: spgrad.csr_mm(INTEGERS([0, 1, 3]), INTEGERS([1, 0, 7]), torch.ones(3), B),
    lambda: spgrad.csr_mm(INTEGERS([0, 2, 1]), INTEGERS([1, 0, 2]), torch.ones(3), B),
    lambda: spgrad.coo_mm(INTEGERS([[0, 5], [1, 0]]), torch.ones(2), (2, 3), B),
    lambda: spgrad.Pattern(A).mm(torch.ones(4), B),
    lambda: spgrad.nn.SparseLinear(3, 4, 0.9),
    lambda: step_of_adam(A),
    lambda: step_of_adam(A.to_sparse_coo()),
    lambda: spgrad.sparse_mm(A, B).sum().backward(),
    lambda: torch.func.grad(lambda b: spgrad.sparse_mm(A, b).sum())(B),
    lambda: copy.deepcopy(torch.nn.Parameter(A)),
    lambda: use_gradient(lambda weight: torch.nn.utils.clip_grad_norm_([weight], 1.0)),
    lambda: use_gradient(lambda weight: weight.grad.norm()),
    lambda: torch.onnx.export(spgrad.nn.SparseLinear(3, 2).eval(), (B.T,), verbose=False),
]
ERRORS = TEXTS["docs/errors.md"]
MESSAGES = [*table(ERRORS, "From spgrad"), *table(ERRORS, "From PyTorch")]


@pytest.mark.parametrize(("message", "mistake"), list(zip(MESSAGES, MISTAKES, strict=True)))
def test_the_errors_that_are_explained_are_those_that_are_raised(message, mistake):
    with pytest.raises((RuntimeError, ValueError), match=f"^{re.escape(message)}"):
        mistake()


def test_the_reference_lists_all_that_is_public(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    listed = generate.python_api().splitlines()
    modules = {module.__name__: module for module in generate.public_modules()}
    assert {"spgrad", "spgrad.nn", "spgrad.cuda", "spgrad.info"} <= set(modules)
    for name, module in modules.items():
        for public in module.__all__:
            if callable(getattr(module, public)):
                assert f"   {name}.{public}" in listed
    sys.modules.pop("generate")
