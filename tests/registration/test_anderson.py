"""Anderson acceleration on linear fixed points, which have a closed form."""

import pytest
import torch

from cortexgen.registration.anderson import anderson


@pytest.fixture
def linear():
    """`f(x) = A x + b` with the slowest part of A at 0.98, and where it stands still."""
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))
    matrix = turn @ torch.diag(torch.linspace(-0.4, 0.98, 60, dtype=torch.float64)) @ turn.T
    shift = torch.randn(60, generator=generator, dtype=torch.float64)
    point = torch.linalg.solve(torch.eye(60, dtype=torch.float64) - matrix, shift)
    return (lambda x: (matrix @ x.flatten() + shift).view(x.shape)), point.view(3, 4, 5)


def test_it_ends_where_the_closed_form_is_and_sooner_than_plain_iteration(linear):
    step, point = linear
    found = anderson(step, torch.zeros_like(point), iterations=400, ridge=1e-10, tolerance=1e-7)
    assert found.residual < 1e-7 and found.iterations < 250
    torch.testing.assert_close(found.point, point, rtol=0, atol=1e-4 * float(point.abs().max()))
    plain = torch.zeros_like(point)
    for _ in range(found.iterations):
        plain = step(plain)
    assert (plain - point).norm() > 50 * (found.point - point).norm()


def test_as_many_answers_as_there_are_unknowns_solve_it_at_once():
    """Anderson's method is GMRES on a linear problem: n + 1 evaluations for n unknowns, and one that says so."""
    matrix = torch.tensor([[0.5, 0.3, 0.0], [0.0, -0.6, 0.2], [0.1, 0.0, 0.9]], dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = anderson(lambda x: matrix @ x + shift, shift * 0, ridge=1e-14, tolerance=1e-8)
    assert found.iterations <= 6
    torch.testing.assert_close(found.point, torch.linalg.solve(torch.eye(3).double() - matrix, shift))


def test_it_stops_at_the_number_of_iterations(linear):
    step, point = linear
    found = anderson(step, torch.zeros_like(point), iterations=3)
    assert found.iterations == 3 and found.residual > 1e-3
