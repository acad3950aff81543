"""The benchmark of `fastlstm.torch`, once and untimed."""

import pytest

pytest.importorskip("torch")
from bench.in_torch import calls


def test_every_call_runs():
    for runs in calls(5, 2, 3, 4).values():
        for run in runs.values():
            assert run() is not None
