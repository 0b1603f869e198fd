"""What is published: one wheel out of those of several PyTorchs, and the sources."""

import base64
import hashlib
import importlib
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INFO = "spgrad-0.1.0.dist-info"


@pytest.fixture
def make_wheel(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "cmake")
    return importlib.import_module("make_wheel")


def wheel_of(folder, series, **others):
    """Make a wheel as a build for one PyTorch does."""
    folder.mkdir()
    major, minor = series.split(".")
    metadata = f"Name: spgrad\nRequires-Dist: torch>={series},<{major}.{int(minor) + 1}\n"
    files = {
        "spgrad/__init__.py": "import torch\n",
        f"spgrad/{series}/lib/libspgrad.so": f"for {series}",
        f"{INFO}/METADATA": metadata + "Requires-Dist: scipy ; extra == 'scipy'\n",
        f"{INFO}/RECORD": "of this wheel",
    } | others
    path = folder / "spgrad-0.1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def test_one_wheel_has_the_libraries_of_all(make_wheel, tmp_path):
    wheels = [wheel_of(tmp_path / series, series) for series in ("2.11", "2.12")]
    make_wheel.merge(wheels, "torch<2.13,>=2.11", tmp_path / "all.whl")
    with zipfile.ZipFile(tmp_path / "all.whl") as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert files.pop("spgrad/2.11/lib/libspgrad.so") == b"for 2.11"
    assert files["spgrad/2.12/lib/libspgrad.so"] == b"for 2.12"
    lines = files[f"{INFO}/METADATA"].decode().splitlines()
    assert lines[1:] == [
        "Requires-Dist: torch<2.13,>=2.11",
        "Requires-Dist: scipy ; extra == 'scipy'",
    ]
    listed = dict(line.split(",", 1) for line in files[f"{INFO}/RECORD"].decode().splitlines())
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"for 2.12").digest()).decode().rstrip("=")
    assert listed["spgrad/2.12/lib/libspgrad.so"] == f"sha256={digest},8"
    assert set(listed) == {*files, "spgrad/2.11/lib/libspgrad.so"}


def test_files_that_differ_are_not_put_into_one_wheel(make_wheel, tmp_path):
    wheels = [
        wheel_of(tmp_path / series, series, **{"spgrad/_build.py": series})
        for series in ("2.11", "2.12")
    ]
    with pytest.raises(ValueError, match=r"spgrad/_build\.py differs between"):
        make_wheel.merge(wheels, "torch", tmp_path / "all.whl")


def test_the_series_of_the_wheel_are_those_that_are_supported(make_wheel):
    backend = importlib.import_module("spgrad_build")
    assert f"torch>={make_wheel.SERIES[0]}" == backend._SUPPORTED


def test_the_sources_are_complete(monkeypatch, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("the list of the sources is that of git")
    monkeypatch.syspath_prepend(ROOT / "cmake")
    monkeypatch.chdir(ROOT)
    name = importlib.import_module("spgrad_build").build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        members = {each.name.partition("/")[2] for each in archive.getmembers()}
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    sources = {
        line for line in listed.stdout.splitlines() if not line.startswith((".ci/", ".github/"))
    }
    assert sources - members == set()
    assert members - sources - {"PKG-INFO"} == set()


def test_a_workflow_runs_targets_that_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = re.sub(r"\$\{\{.*?\}\}", "", path.read_text())
        commands = re.findall(r"^ *(?:- )?run: *(.*)", text, re.MULTILINE)
        assert commands
        for make, *words in map(str.split, commands):
            assert make == "make"
            assert {word for word in words if "=" not in word} <= {*targets}
