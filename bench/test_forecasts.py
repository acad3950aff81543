"""`python -m bench.forecasts`: the errors of the methods beside the forecaster, by hand."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("statsmodels")

from bench.forecasts import HORIZON, Series, errors


def test_errors_on_a_line_with_a_season():
    """A line of slope 2, with a season of 4: all but the last value know the season."""
    t = np.arange(84)
    values = 100 + 2.0 * t + np.array([0, 5, 1, -3])[t % 4]
    found = errors(Series(values, 4), origins=2, seeds=1)
    assert {name: rows.shape for name, rows in found.items()} == dict.fromkeys(found, (2, 1))
    ahead = np.arange(1, HORIZON + 1)
    behind = 2 * 4 * -(-ahead // 4)  # what the line rises by from the season before
    np.testing.assert_allclose(found["last season"], np.full((2, 1), behind.mean()))
    last = [abs(values[n : n + HORIZON] - values[n - 1]).mean() for n in (60, 72)]
    np.testing.assert_allclose(found["last value"][:, 0], last)
    assert found["Holt-Winters"].max() < 1
    assert found["forecaster"].max() < min(last)
