"""Estimators of scikit-learn that train on sequences and series."""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    from fastlstm.checks import missing

    raise missing("fastlstm.sklearn", "scikit-learn", "sklearn") from error

from fastlstm.in_sklearn.classifier import LSTMClassifier
from fastlstm.in_sklearn.forecast.forecaster import LSTMForecaster
from fastlstm.in_sklearn.regressor import LSTMRegressor

__all__ = ["LSTMClassifier", "LSTMForecaster", "LSTMRegressor"]
