"""scikit-learn's own checks, of the estimators in their default form."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a step's gradient is a weighted mean over a batch, and with repeated or removed rows "
        "the batches are others"
    ),
}


@parametrize_with_checks(
    [LSTMClassifier(), LSTMRegressor()], expected_failed_checks=lambda estimator: EXPECTED
)
def test_check(estimator, check):
    check(estimator)
