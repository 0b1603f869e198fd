"""Problems of least squares, and what dense ones come to."""

import torch

import spgrad

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
# (n, m, rank): tall, square, wide, and both of less than full rank.
SHAPES = ((30, 10, 10), (12, 12, 12), (8, 20, 8), (12, 7, 4), (7, 12, 4))
FORMS = ("csr", "coo", "uncoalesced", "csr_lstsq", "coo_lstsq", "pattern")


def drawn(*size, dtype=torch.float64, seed=0):
    """Draw the same numbers on every device."""
    make = torch.Generator("cpu").manual_seed(seed)
    numbers = torch.randn(size, generator=make, dtype=dtype, device="cpu")
    return numbers.to(torch.get_default_device())


def matrix(n, m, rank=None, dtype=torch.float64, seed=0):
    """Make a dense matrix with zeros; of a lower rank it has none."""
    if rank is not None and rank < min(n, m):
        both = drawn(n + m, rank, dtype=dtype, seed=seed)
        return both[:n] @ both[n:].T
    D = drawn(n, m, dtype=dtype, seed=seed) * (drawn(n, m, seed=seed + 1000) < 0.25)
    D.diagonal().add_(4)
    return D


def right_side(*size, dtype=torch.float64, seed=1):
    """Make a right-hand side, or a gradient."""
    return drawn(*size, dtype=dtype, seed=seed)


def uncoalesced(A):
    """Split each entry in two, and put the entries in another order."""
    indices, values = A.indices(), A.values()
    order = drawn(2 * len(values), seed=2).argsort()
    doubled = torch.cat([values * 0.25, values * 0.75])
    return torch.sparse_coo_tensor(
        torch.cat([indices, indices], 1)[:, order], doubled[order], A.shape
    )


def solver(D, form):
    """Return leaf values of D in a form, their indices, and what solves with them."""
    csr, coo = D.to_sparse_csr(), D.to_sparse_coo()
    coo = uncoalesced(coo) if form == "uncoalesced" else coo
    if form in {"csr", "coo", "uncoalesced"}:
        A = (csr if form == "csr" else coo).requires_grad_()
        return A, coo._indices(), lambda B, **options: spgrad.sparse_lstsq(A, B, **options)
    values = coo._values().clone().requires_grad_()
    if form == "csr_lstsq":
        structure = csr.crow_indices(), csr.col_indices()
        solve = lambda B, **options: spgrad.csr_lstsq(*structure, values, B, D.shape[1], **options)  # noqa: E731
    elif form == "coo_lstsq":
        solve = lambda B, **options: spgrad.coo_lstsq(  # noqa: E731
            coo._indices(), values, D.shape, B, **options
        )
    else:
        pattern = spgrad.Pattern(csr)
        solve = lambda B, **options: pattern.lstsq(values, B, **options)  # noqa: E731
    return values, coo._indices(), solve


def gradients(D, B, G, rtol=1e-5):
    """Give the dense gradients of the solution of least norm, by its three terms."""
    P = torch.linalg.pinv(D, rtol=rtol)  # 32-bit matrices of a lower rank have it but for rounding
    X = P @ B
    W = P.mH @ G
    dA = -W @ X.mH + (B - D @ X) @ (P @ W).mH + P.mH @ X @ (G - D.mH @ W).mH
    return X, dA, W


def assert_close(result, expected, tolerance):
    wide = result.detach().to(expected.dtype)
    assert (wide - expected).norm() <= tolerance * expected.norm() + 1e-300


def assert_transforms(solve, values, b):
    """Compare solve(values, b) compiled, exported, differentiated and mapped with plain calls."""
    expected = solve(values, b)
    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")
    leaf, same = values.clone().requires_grad_(), values.clone().requires_grad_()
    compiled(leaf, b).sum().backward()
    solve(same, b).sum().backward()
    torch.testing.assert_close(compiled(values, b), expected)
    torch.testing.assert_close(leaf.grad, same.grad)
    grad = torch.func.grad(lambda values: solve(values, b).sum())(values)
    torch.testing.assert_close(grad, same.grad)

    class Solve(torch.nn.Module):
        def forward(self, values, b):
            return solve(values, b)

    exported = torch.export.export(Solve(), (values, b)).module()
    torch.testing.assert_close(exported(values, b), expected)

    B = right_side(len(b), 3)
    each = torch.func.vmap(lambda b: solve(values, b), in_dims=1, out_dims=1)(B)
    torch.testing.assert_close(each, solve(values, B))
    both = torch.func.vmap(solve, in_dims=(0, None))(torch.stack([values, 2 * values]), b)
    torch.testing.assert_close(both, torch.stack([solve(values, b), solve(2 * values, b)]))


def assert_same_bits_on_threads(solve, A):
    """Compare solve(A) and the gradient of A on one thread and on several."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = A.detach().requires_grad_()
            x = solve(leaf)
            x.square().sum().backward()
            results.append((x, leaf.grad.values()))
    finally:
        torch.set_num_threads(threads)
    for x, grad in results[1:]:
        assert x.equal(results[0][0])
        assert grad.equal(results[0][1])
