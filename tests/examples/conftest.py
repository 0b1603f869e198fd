"""Quick runs of the examples, which the site shows, too."""

import contextlib
import importlib
import io
import time

import pytest

from docs import gallery


@pytest.fixture
def run_quickly(monkeypatch, tmp_path):
    """Run an example; give the folder of its pictures, and what it printed."""

    def run(name):
        known = gallery.kept(name)
        keeps = known is None or known.quick  # a full run stays
        folder = gallery.clear(name) if keeps else tmp_path
        for variable, value in gallery.SETTINGS.items():
            monkeypatch.setenv(variable, value)
        program = importlib.import_module(f"examples.{name}.__main__")
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            program.main(["--quick", "--output", str(folder)])
        seconds = time.perf_counter() - start
        assert set(program.PICTURES) == {path.name for path in folder.glob("*.png")}
        if keeps:
            gallery.keep(name, printed.getvalue(), seconds, quick=True)
        return folder, printed.getvalue()

    return run
