"""What a user does first, with spgrad as it was installed."""

import torch

import spgrad

torch.manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.complex64):
    dense = torch.randn(40, 30, dtype=dtype) * (torch.rand(40, 30) < 0.2)
    A = dense.to_sparse_csr().requires_grad_()
    B = torch.randn(30, 8, dtype=dtype, requires_grad=True)
    spgrad.sparse_mm(A, B).abs().square().sum().backward()
    wide = torch.complex128 if dtype.is_complex else torch.float64
    A2, B2 = (x.detach().to(wide).requires_grad_() for x in (dense, B))
    (A2 @ B2).abs().square().sum().backward()
    expected = A2.grad * (dense != 0)
    assert torch.allclose(A.grad.to_dense().to(wide), expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(B.grad.to(wide), B2.grad, rtol=1e-4, atol=1e-4)

layer = spgrad.nn.SparseLinear(20, 5, sparsity=0.5)
optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
x, y = torch.randn(200, 20), torch.randn(200, 5)
losses = []
for _ in range(100):
    optimiser.zero_grad()
    loss = (layer(x) - y).square().mean()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]
print(f"PyTorch {torch.__version__}, {spgrad.__path__[0]}: {losses[0]:.3f} -> {losses[-1]:.3f}")
