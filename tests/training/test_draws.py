"""What training draws depends on the seed, the step and the row of the batch alone."""

import copy

import numpy as np
import pytest
from toys import Forgetful

import fastlstm as fl
from fastlstm.draws import Draws, drawing

B, I, H = 5, 3, 4
LENGTHS = np.array([6, 2, 4, 0, 5])


def model(batch_first):
    return fl.Sequential(
        fl.Dropout(0.3),
        fl.LSTM(
            *(I, H, 2),
            dropout=0.4,
            bidirectional=True,
            recurrent_dropout=0.3,
            zoneout=(0.3, 0.2),
            batch_first=batch_first,
            dtype=np.float64,
            rng=1,
        ),
        fl.Sequential(fl.Linear(2 * H, 7, dtype=np.float64, rng=1), fl.Dropout(0.5)),
    )


def forward(x, lengths, batch_first, seed=3, step=8, first_row=0):
    """The result of a step of training, rows first."""
    one = model(batch_first)
    with drawing(Draws(seed, step, batch_first, first_row)):
        (y, _), _ = one.forward(x if batch_first else x.swapaxes(0, 1), lengths=lengths)
    return y if batch_first else y.swapaxes(0, 1)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_row_is_drawn_by_itself(batch_first, rng):
    """Without the rows beside it, and without the padding that they cause."""
    x = rng.standard_normal((B, 6, I))
    whole = forward(x, LENGTHS, batch_first)
    for row in (0, 1, 2, 4):
        n = LENGTHS[row]
        alone = forward(x[row : row + 1, :n], None, batch_first, first_row=row)
        np.testing.assert_array_equal(alone[0], whole[row, :n])


@pytest.mark.parametrize("batch_first", [False, True])
def test_parts_of_a_batch_are_drawn_as_the_whole(batch_first, rng):
    x = rng.standard_normal((B, 6, I))
    whole = forward(x, None, batch_first)
    parts = [forward(x[:2], None, batch_first), forward(x[2:], None, batch_first, first_row=2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("other", [{"seed": 4}, {"step": 9}, {"first_row": 1}])
def test_other_seeds_steps_and_rows_draw_other_numbers(other, rng):
    x = rng.standard_normal((B, 6, I))
    assert (forward(x, None, True) != forward(x, None, True, **other)).any(axis=(1, 2)).all()


def test_every_draw_of_a_step_differs():
    layer = fl.Dropout(0.5)
    with drawing(Draws(0, 0)):
        first, second = (layer.forward(np.ones((4, B, 8)))[0] for _ in range(2))
    assert (first != second).any()
    assert (first[:, 0] != first[:, 1]).any()


@pytest.mark.parametrize("shape", [(0, B, I), (6, 0, I)])
def test_nothing_is_drawn_for_nothing(shape):
    with drawing(Draws(0, 0)):
        (y, _), _ = model(False).forward(np.ones(shape))
    assert y.shape == (*shape[:2], 7)


def test_the_chance_is_that_of_the_layer():
    layer = fl.Dropout(0.3)
    kept = []
    for step in range(50):
        with drawing(Draws(0, step)):
            kept.append(layer.forward(np.ones((9, 20, 11)))[0] > 0)
    share = np.mean(kept)
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / np.size(kept))


def test_the_layers_own_generators_rest(rng):
    one = model(False)
    before = copy.deepcopy(one)
    with drawing(Draws(3, 8)):
        one.forward(rng.standard_normal((6, B, I)))
    x = rng.standard_normal((6, B, I))
    np.testing.assert_array_equal(one.forward(x)[0][0], before.forward(x)[0][0])


def test_a_cell_that_knows_no_rows_draws_from_seed_and_step(rng):
    x = rng.standard_normal((6, B, I))
    stack = fl.engine.Stack([[Forgetful(I, H)], [Forgetful(H, H)]], dtype=np.float64, rng=0)

    def forward(step, first_row=0):
        with drawing(Draws(3, step, first_row=first_row)):
            return stack.forward(x)[0][0]

    first = forward(8)
    np.testing.assert_array_equal(forward(8), first)
    assert (forward(9) != first).any()
    assert (forward(8, first_row=2) != first).any()
