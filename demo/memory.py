"""Memory of the machine and of this process, from Linux's /proc."""

from pathlib import Path


def available_bytes() -> int:
    """Return the memory that programs can still take without swapping."""
    return _read("/proc/meminfo", "MemAvailable")


def peak_resident_bytes() -> int:
    """Return the most physical memory that this process ever occupied.

    Not `ru_maxrss`: a process starts with the peak of the process that started it.
    """
    return _read("/proc/self/status", "VmHWM")


def _read(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    message = f"{path} has no line {name}"
    raise LookupError(message)
