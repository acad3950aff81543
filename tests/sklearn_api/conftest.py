"""The tests of estimators need scikit-learn, and compute on one thread."""

import pytest

import fastlstm as fl

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def one_thread():
    before = fl.get_num_threads()
    fl.set_num_threads(1)
    yield
    fl.set_num_threads(before)
