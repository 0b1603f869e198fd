"""A Gaussian Markov random field whose precision matrix is learned.

Each pixel is a mean of neighbours that come before it, plus noise: ``x = A x + diag(s) z``. With
``F = diag(1 / s) (I - A)``, which is sparse and triangular, the precision matrix is ``F.T @ F`` and
its log-determinant the sum of ``-2 log(s)``. So the likelihood is exact, and takes one
product; where a pixel or one of its neighbours was not seen, the term of that pixel is left out.
"""

import torch
from torch import Tensor, nn

import spgrad
from examples.precision_matrix.data import Measurements

# Rows and columns to the neighbours.
NEIGHBOURS = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2), (-2, 0))
HIDDEN = 24


class Field(nn.Module):
    """The entries of the factor ``F``, as functions of the colours of the photograph."""

    def __init__(self, data: Measurements, *, uses_colors: bool) -> None:
        """Make the pattern, and features of each entry."""
        super().__init__()
        pixels = torch.arange(data.height * data.width)
        rows, columns = pixels // data.width, pixels % data.width
        neighbours, exists = [], []
        for down, across in NEIGHBOURS:
            row, column = rows + down, columns + across
            exists.append((row >= 0) & (column >= 0) & (column < data.width))
            neighbours.append(row * data.width + column)
        self.exists = torch.stack(exists, 1)
        others = torch.stack(neighbours, 1).where(self.exists, 0)
        self.pattern = _factor_pattern(others, self.exists)
        distances = (data.color.unsqueeze(1) - data.color[others]).abs().amax(2)
        # Of equal colours, all pixels get the same weights and noise.
        features = distances if uses_colors else torch.zeros_like(distances)
        self.features = 10 * features
        self.network = nn.Sequential(
            nn.Linear(len(NEIGHBOURS), HIDDEN),
            nn.Tanh(),
            nn.Linear(HIDDEN, len(NEIGHBOURS) + 1),
        )
        # Rows whose pixels were all seen make the likelihood.
        is_known = data.is_seen[others] | ~self.exists
        self.is_complete = data.is_seen & is_known.all(1) & self.exists.any(1)

    def values(self) -> tuple[Tensor, Tensor]:
        """Compute the entries of the factor, and the logarithms of the noise."""
        outputs = self.network(self.features)
        logits = outputs[:, :-1].masked_fill(~self.exists, -torch.inf)
        # The first pixel has no neighbours.
        weights = logits.where(self.exists.any(1, keepdim=True), 0).softmax(1)
        log_noise = outputs[:, -1]
        scale = torch.exp(-log_noise)
        of_others = -(weights * scale.unsqueeze(1))[self.exists]
        return torch.cat([scale, of_others]), log_noise

    def negative_log_likelihood(self, disparity: Tensor) -> Tensor:
        """Average over the pixels that were seen with all of their neighbours, in nats."""
        values, log_noise = self.values()
        residuals = self.pattern.mm(values, disparity.unsqueeze(1)).squeeze(1)
        terms = residuals.square() / 2 + log_noise + torch.tensor(2 * torch.pi).log() / 2
        return terms[self.is_complete].mean()


def _factor_pattern(others: Tensor, exists: Tensor) -> spgrad.Pattern:
    """Make the pattern of the diagonal, then of the neighbours that exist."""
    pixels = torch.arange(len(others))
    rows = torch.cat([pixels, pixels.repeat_interleave(exists.sum(1))])
    columns = torch.cat([pixels, others[exists]])
    return spgrad.Pattern.from_coo(torch.stack([rows, columns]), (len(others), len(others)))


def fit(field: Field, disparity: Tensor, steps: int) -> list[float]:
    """Learn the entries, and return the negative log-likelihood of each step."""
    optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = field.negative_log_likelihood(disparity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
