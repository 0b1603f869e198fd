"""Makes one wheel that holds the C++ library for each supported minor version of PyTorch.

In one build folder a wheel is made for one PyTorch after the other: the kernels, which need none,
are compiled once. All that these wheels hold is then put into one. auditwheel refuses what needs
more of Linux than PyTorch does, with libtorch and its OpenMP left out, which PyTorch brings.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERIES = ("2.11", "2.12", "2.13", "2.14", "2.15")
# What a build needs of a PyTorch: a hundredth of its files, and half of its bytes.
NEEDED = re.compile(r"torch/include/.+|torch(/lib|\.libs)/lib(torch|torch_cpu|c10|gomp.*)\.so.*")
TORCH = re.compile(rb"(?<=^Requires-Dist: )torch[<>=].*$", re.MULTILINE)
LARGEST = 40_000_000  # bytes


def pip(*arguments: str | Path) -> None:
    """Run pip."""
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True)  # noqa: S603


def torch_folder(series: str, work: Path) -> Path:
    """Give the folder of the PyTorch at hand, or else of what is needed of another one."""
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin and importlib.metadata.version("torch").startswith(f"{series}."):
        return Path(spec.origin).parent
    folder, download = work / f"torch-{series}", work / "download"
    if not folder.exists():
        shutil.rmtree(download, ignore_errors=True)
        options = ("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", download)
        pip("download", *options, f"torch=={series}.*")
        (path,) = download.glob("torch-*.whl")
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if NEEDED.fullmatch(name)]
            wheel.extractall(download, names)
        path.unlink()
        download.rename(folder)
    return folder / "torch"


def build(series: str, work: Path) -> Path:
    """Make the wheel of one PyTorch."""
    folder = work / series
    shutil.rmtree(folder, ignore_errors=True)
    newer = [int(number) for number in platform.libc_ver()[1].split(".")] > [2, 28]
    settings = {
        "build-dir": ROOT / "build" / "wheel",
        "cmake.define.SPGRAD_WERROR": "ON",
        "cmake.define.SPGRAD_GLIBC_2_28": "ON" if newer else "OFF",
        "cmake.define.LIBTORCH_ROOT": torch_folder(series, work),
    }
    given = [f"--config-settings={name}={value}" for name, value in settings.items()]
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    pip("wheel", "--verbose", *options, *given, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def record(files: dict[str, bytes], name: str) -> bytes:
    """List the files of a wheel with their hashes."""
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{name},,\n"]).encode()


def merge(wheels: list[Path], requirement: str, output: Path) -> None:
    """Put what several wheels hold into one, which asks for what the requirement says."""
    files: dict[str, bytes] = {}
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                content = wheel.read(name)
                if name.endswith(".dist-info/RECORD"):
                    continue
                if name.endswith(".dist-info/METADATA"):
                    content = TORCH.sub(requirement.encode(), content)
                if files.setdefault(name, content) != content:
                    message = f"{name} differs between {wheels[0]} and {path}"
                    raise ValueError(message)
    (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    name = metadata.replace("METADATA", "RECORD")
    files[name] = record(files, name)
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


def main() -> None:
    """Make the wheel, and say how it is called."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--series", nargs="+", choices=SERIES, default=SERIES)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)

    series = sorted(options.series, key=SERIES.index)
    wheels = [build(each, work) for each in series]
    major, minor = series[-1].split(".")
    merged = work / wheels[0].name
    merge(wheels, f"torch<{major}.{int(minor) + 1},>={series[0]}", merged)

    repaired = work / "repaired"
    shutil.rmtree(repaired, ignore_errors=True)
    excluded = [f"--exclude={name}" for name in ("libtorch*", "libc10*", "libgomp*")]
    platform_tag = f"manylinux_2_28_{platform.machine()}"  # that of PyTorch's own wheels
    command = ["auditwheel", "repair", "--plat", platform_tag, "--only-plat", *excluded]
    subprocess.run([*command, "--wheel-dir", str(repaired), str(merged)], check=True)  # noqa: S603
    (wheel,) = repaired.glob("*.whl")
    if (size := wheel.stat().st_size) > LARGEST:
        sys.exit(f"{wheel.name} must have at most {LARGEST} bytes, but has {size}")
    options.output.mkdir(parents=True, exist_ok=True)
    for old in options.output.glob("spgrad-*.whl"):
        old.unlink()
    print(shutil.copy(wheel, options.output))
    print(f"{size / 1e6:.1f} MB, for PyTorch {', '.join(series)}")


if __name__ == "__main__":
    main()
