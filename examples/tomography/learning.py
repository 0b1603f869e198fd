"""The faults of the scanner, learned so that half of the views foretell the other half."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from examples.tomography.scanner import Measurements, Rays

TOLERANCE = 1e-4
EVEN, ODD = slice(0, None, 2), slice(1, None, 2)
RATE = {"shift": 0.2, "log_gains": 0.02, "log_damp": 0.02}
# The weight of the squared logarithms of the gains. Some gains and rings in the picture look alike
# in all views: of these, small gains are the likelier.
PRIOR = 0.3


class Faults(nn.Module):
    """What is not known of the scanner, and how much to damp."""

    def __init__(self, data: Measurements) -> None:
        """Begin with a scanner without faults, and damping of the size of the matrix's columns."""
        super().__init__()
        views, places = data.sinogram.shape
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_gains = nn.Parameter(torch.zeros(places, dtype=torch.float64))
        self.log_damp = nn.Parameter(torch.tensor(views / 2, dtype=torch.float64).log() / 2)

    def gains(self) -> Tensor:
        """Give the gains, one on average: a factor of all is one of the picture."""
        return (self.log_gains - self.log_gains.mean()).exp()

    def matrix(self, data: Measurements, views: slice) -> tuple[Rays, Tensor]:
        """Give what a scanner with these faults measures of each pixel."""
        rays = data.scanner.rays(data.angles[views], self.shift)
        return rays, rays.lengths * self.gains()[rays.places]

    def reconstruct(self, data: Measurements, views: slice, x0: Tensor | None = None) -> Tensor:
        """Find the picture that fits these views best."""
        rays, values = self.matrix(data, views)
        measured = data.sinogram[views].flatten()
        damp = self.log_damp.exp()
        return rays.pattern.lstsq(values, measured, damp=damp, x0=x0, tol=TOLERANCE)


def learn(
    faults: Faults, data: Measurements, names: Sequence[str], steps: int
) -> Iterator[tuple[float, float]]:
    """Learn some of the faults, and give the loss and the shift of each step.

    The picture of the even views has to foretell the odd ones. So the gradient goes through the
    least squares: it says how the picture changes with the entries of the matrix.
    """
    parameters = [{"params": [getattr(faults, name)], "lr": RATE[name]} for name in names]
    optimizer = torch.optim.Adam(parameters)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    expected = data.sinogram[ODD].flatten().unsqueeze(1)
    guess = None
    for _ in range(steps):
        picture = faults.reconstruct(data, EVEN, guess)
        guess = picture.detach()
        rays, values = faults.matrix(data, ODD)
        foretold = rays.pattern.mm(values, picture.unsqueeze(1))
        misfit = (foretold - expected).square().mean()
        loss = misfit + PRIOR * faults.log_gains.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield misfit.item(), faults.shift.item()
