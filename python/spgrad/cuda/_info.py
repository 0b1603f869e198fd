"""What the kernels for CUDA devices are compiled with, and for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from spgrad import _library  # noqa: F401 - registers the operators


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA device."""

    architecture: str
    """Such as ``"sm_90"``."""

    unavailable: str | None
    """Why products run on PyTorch's own operators there; None where they run on the kernels."""


@dataclass(frozen=True, slots=True)
class Info:
    """What :func:`info` tells."""

    nvrtc: str | None
    """The version of NVRTC, such as ``"13.2"``; None where it cannot be opened."""

    library: str
    """Its file, or why it cannot be opened."""

    architectures: tuple[str, ...]
    """What it compiles for."""

    cache: Path | None
    """The folder that compiled kernels are kept in; None where the environment names none."""

    devices: tuple[Device, ...]
    """All that PyTorch has."""

    unavailable: str | None
    """Why there is no device at all; None where there is one."""

    compiled: int
    """Kernels that this process has compiled."""

    read: int
    """Kernels that it has read from the cache instead."""

    loaded: int
    """Kernels that it has loaded onto devices."""

    def __str__(self) -> str:
        """Lay it out in lines."""
        lines = [
            f"NVRTC     {self.nvrtc or 'none'}, {self.library}",
            f"          compiles for {', '.join(self.architectures)}" if self.nvrtc else None,
            f"cache     {self.cache or 'none'}",
            *(
                f"device {number}  {device.architecture}, {device.unavailable or 'available'}"
                for number, device in enumerate(self.devices)
            ),
            f"devices   {self.unavailable}" if self.unavailable else None,
            f"kernels   {self.compiled} compiled, {self.read} read, {self.loaded} loaded",
        ]
        return "\n".join(line for line in lines if line)


def info() -> Info:
    """Tell what the kernels for CUDA devices are compiled with, and why not where they cannot run.

    >>> import spgrad
    >>> info = spgrad.cuda.info()
    >>> info.compiled >= 0
    True

    ``print(spgrad.cuda.info())``, or ``python -m spgrad.cuda info``, shows all of it.

    Returns:
        An object with the attributes ``nvrtc`` (its version), ``library`` (its file, or why it
        cannot be opened), ``architectures`` (what it compiles for), ``cache`` (a folder),
        ``devices`` (each with its ``architecture`` and why it is ``unavailable``), ``unavailable``
        (why there is none), and the numbers of kernels that this process has ``compiled``, ``read``
        from the cache, and ``loaded``.

    """
    nvrtc, library, supported, cache, architectures, reasons, unavailable, counts = (
        torch.ops.spgrad._cuda_info()  # noqa: SLF001 - our own
    )
    return Info(
        nvrtc or None,
        library,
        tuple(supported),
        Path(cache) if cache else None,
        tuple(
            Device(architecture, reason or None)
            for architecture, reason in zip(architectures, reasons, strict=True)
        ),
        unavailable or None,
        *counts,
    )
