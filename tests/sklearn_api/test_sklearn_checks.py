"""scikit-learn's own checks, of the estimators in their default form."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

BY_BATCHES = (
    "a step's gradient is a weighted mean over a batch, and a batch of repeated or removed rows "
    "is another one"
)
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": BY_BATCHES,
    "check_sample_weight_equivalence_on_sparse_data": BY_BATCHES,
}


@parametrize_with_checks(
    [LSTMClassifier(), LSTMRegressor()], expected_failed_checks=lambda estimator: EXPECTED
)
def test_check(estimator, check):
    check(estimator)
