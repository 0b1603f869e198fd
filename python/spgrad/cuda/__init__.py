"""What there is to know and to set where products run on CUDA devices.

The kernels are compiled when they are first used, by the NVRTC that PyTorch brings, and kept in a
cache; ``python -m spgrad.cuda precompile`` fills one before, on any machine. Nothing here needs a
device, or a PyTorch with CUDA.
"""

from spgrad.cuda._check import check, check_at_once
from spgrad.cuda._info import info

__all__ = ["check", "check_at_once", "info"]
