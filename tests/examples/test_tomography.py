"""The example of a tomograph: its rays beside marched ones, and its gradient beside a dense one."""

import torch
from pictures import assert_is_picture

from examples.tomography import learning
from examples.tomography.scanner import Scanner, measure


def dense_of(pattern, values):
    return torch.sparse_coo_tensor(
        pattern.indices(), values, pattern.shape, check_invariants=True
    ).to_dense()


def marched(scanner, angle, offset):
    """Walk along a ray in small steps, and count them in each pixel of the disc."""
    steps = torch.linspace(-scanner.side, scanner.side, 40_001).double()
    x = offset * angle.cos() - steps * angle.sin()
    y = offset * angle.sin() + steps * angle.cos()
    column, row = (
        (place + scanner.side / 2).floor().long().clamp(-1, scanner.side) for place in (x, -y)
    )
    is_on = (column >= 0) & (column < scanner.side) & (row >= 0) & (row < scanner.side)
    number = (row * scanner.side + column)[is_on]
    counted = torch.bincount(number, minlength=scanner.side**2) * (steps[1] - steps[0])
    return counted.view(scanner.side, scanner.side)[scanner.is_inside]


def test_faults_are_learned_and_drawn(run_quickly):
    folder, _ = run_quickly("tomography")
    assert_is_picture(folder / "tomography.png")


def test_rays_have_the_lengths_of_walks_through_the_pixels():
    scanner, shift = Scanner(7, 11), torch.tensor(1.3)
    angles = torch.tensor([0.1, 0.9, 2.5, 4.0, 5.7]).double()
    rays = scanner.rays(angles, shift)
    assert (rays.lengths > 0).all()
    expected = [
        marched(scanner, angle, place - 5 - shift) for angle in angles for place in range(11)
    ]
    lengths = dense_of(rays.pattern, rays.lengths)
    torch.testing.assert_close(lengths, torch.stack(expected), atol=2e-3, rtol=0)
    places = dense_of(rays.pattern, rays.places)
    expected_places = torch.arange(11).repeat(5).unsqueeze(1) * (lengths > 0)
    assert torch.equal(places, expected_places)


def test_the_gradient_is_that_of_dense_least_squares(monkeypatch):
    monkeypatch.setattr(learning, "TOLERANCE", 1e-12)
    data = measure(8, 12, torch.Generator().manual_seed(0))
    faults = learning.Faults(data)
    with torch.no_grad():
        faults.shift.fill_(1.2)
    # Steps add up to one of the length zero, so that gradients are those of the beginning.
    monkeypatch.setattr(learning, "RATE", dict.fromkeys(learning.RATE, 0.0))
    ((misfit, _),) = learning.learn(faults, data, list(learning.RATE), 1)
    gradients = [parameter.grad for parameter in faults.parameters()]
    even, odd = (
        dense_of(rays.pattern, values)
        for rays, values in (faults.matrix(data, views) for views in (learning.EVEN, learning.ODD))
    )
    right = data.sinogram[learning.EVEN].flatten()
    ridge = even.T @ even + (2 * faults.log_damp).exp() * torch.eye(even.shape[1])
    foretold = odd @ torch.linalg.solve(ridge, even.T @ right)
    expected = (foretold - data.sinogram[learning.ODD].flatten()).square().mean()
    torch.testing.assert_close(torch.tensor(misfit).double(), expected.detach())
    torch.testing.assert_close(
        gradients, list(torch.autograd.grad(expected, list(faults.parameters())))
    )
