"""Dropout drops its share, keeps the mean, and cuts four fair decisions from each random number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bidaf.model.dropout import LANES, Dropout, keep_mask

MANY = 200_000


def near(share: float, expected: float, count: int) -> bool:
    """Within five standard deviations of a binomial share."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("drop", [0.001, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_dropped_is_the_one_asked_for_and_the_rest_makes_up_for_it(drop: float, seed: int) -> None:
    torch.manual_seed(seed)
    dropped = Dropout(drop)(torch.ones(MANY, dtype=torch.float64))
    share = (dropped == 0).double().mean().item()
    assert near(share, drop, MANY)
    assert torch.allclose(dropped[dropped != 0], torch.tensor(1 / (1 - drop), dtype=torch.float64))
    assert dropped.mean().item() == pytest.approx((1 - share) / (1 - drop))


def test_each_of_the_four_lanes_is_fair_and_independent_of_the_others() -> None:
    torch.manual_seed(0)
    drop = 0.2
    lanes = (keep_mask(torch.empty(MANY, LANES), drop) == 0).double()
    for lane in range(LANES):
        assert near(lanes[:, lane].mean().item(), drop, MANY)
        for other in range(lane):
            assert near((lanes[:, lane] * lanes[:, other]).mean().item(), drop**2, MANY)
    following = (lanes[:-1, -1] * lanes[1:, 0]).mean().item()
    assert near(following, drop**2, MANY - 1)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 7), (4, 1, 9), (2, 3, 5, 7)])
def test_every_shape_gets_a_mask_of_its_own_shape(shape: tuple[int, ...]) -> None:
    mask = keep_mask(torch.empty(shape), 0.5)
    assert mask.shape == shape
    assert set(mask.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_the_elements_after_the_last_whole_draw_are_dropped_as_often(place: int) -> None:
    torch.manual_seed(0)
    masks = torch.stack([keep_mask(torch.empty(5), 0.3) for _ in range(4000)])
    assert near((masks[:, place] == 0).double().mean().item(), 0.3, 4000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_type_of_the_input_is_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, dtype=dtype, requires_grad=True)
    dropped = Dropout(0.2)(values)
    dropped.sum().backward()
    assert dropped.dtype == dtype
    assert values.grad is not None
    assert values.grad.dtype == dtype
    assert set(dropped.tolist()) == {0.0, torch.tensor(1.25, dtype=dtype).item()}


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)])
def test_nothing_is_dropped_in_evaluation_or_with_a_share_of_zero(layer: Dropout) -> None:
    values = torch.randn(50)
    state = torch.get_rng_state()
    assert layer(values) is values
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_passes_where_the_value_passed() -> None:
    torch.manual_seed(0)
    values = torch.randn(300, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.4)(values)
    upstream = torch.randn(300, dtype=torch.float64)
    (dropped * upstream).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, upstream * dropped.detach() / values.detach())
    assert torch.count_nonzero(values.grad == 0) == torch.count_nonzero(dropped == 0) > 0


def test_gradients_are_those_of_finite_differences() -> None:
    def seeded(values: Tensor) -> Tensor:
        torch.manual_seed(7)
        dropped: Tensor = Dropout(0.4)(values)
        return dropped

    assert torch.autograd.gradcheck(seeded, torch.randn(11, dtype=torch.float64, requires_grad=True))


def test_the_seed_decides_and_every_call_draws_again() -> None:
    values = torch.ones(1000)
    layer = Dropout(0.5)
    torch.manual_seed(1)
    first, second = layer(values), layer(values)
    torch.manual_seed(1)
    assert torch.equal(layer(values), first)
    assert torch.equal(layer(values), second)
    assert not torch.equal(first, second)


def test_the_input_is_left_alone_and_may_be_any_view() -> None:
    torch.manual_seed(0)
    base = torch.ones(30, 40)
    dropped = Dropout(0.5)(base.t())
    assert torch.equal(base, torch.ones(30, 40))
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert dropped.shape == (40, 30)
