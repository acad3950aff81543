"""The forecaster: a recurrent network that carries its state along a series."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from fastlstm.checks import read_size, warn_user
from fastlstm.in_sklearn.forecast.carried import Carried, Network
from fastlstm.in_sklearn.forecast.fitting import read_settings, train
from fastlstm.in_sklearn.forecast.intervals import HeldOut, radius
from fastlstm.in_sklearn.forecast.layout import Layout, read_layout
from fastlstm.in_sklearn.forecast.windows import training_size
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.training.data.sequences import read_fraction


class LSTMForecaster(BaseEstimator):
    """Forecasts of one or several time series by a recurrent network.

    The network reads a series step by step and forecasts the next one ("recursive": a forecast is
    read like a value for the one after), or the next `horizon` steps at once ("direct"). Its state
    is carried along the whole series, so `update` costs one step for each new value.

    The tail of every series is held out of training: it ends the training in time, and the errors
    of forecasts of it make prediction intervals.

    Parameters
    ----------
    hidden_size, num_layers : int
    dropout : float in [0, 1)
        In training, between layers and before the head.
    cell : "lstm", "gru" or "rnn"
    strategy : "recursive" or "direct"
    horizon : int, optional
        Steps that a direct forecaster forecasts, which needs it. The horizon of `predict` if that
        has none.
    window : int
        Steps of a training window: how far gradients flow. At least a season does well.
    difference : "auto", None, int or tuple of int
        Lags of differences that the network forecasts in place of values: 1 for a series with a
        trend or with shifts of its level, the length of a season for forecasts beside the value one
        season before, (1, 12) for both. "auto" is 1 or None, by a test of stationarity (KPSS) of
        the training steps.
    log : bool
        Whether to forecast the logarithms of values, which must be above 0: for a spread, or a
        season, that grows with the level.
    lr, weight_decay : float
        Of the optimizer AdamW. Gradients are clipped to a norm of 1.
    max_epochs, batch_size : int
    early_stopping : bool
        Whether `n_iter_no_change` epochs without a better forecast of the tail end the training;
        the weights are then those of the best epoch.
    validation_fraction : float in [0, 1)
        The part of every series, at its end, that is held out. 0 trains on all steps, without
        early stopping and intervals.
    n_iter_no_change : int
    tol : float
        What is at most this much better is no improvement of the loss.
    random_state : int, RandomState or None
    verbose : bool
        Whether to display progress.
    dtype : "float32" or "float64"
    threads : int, optional
        The most threads for the recurrent layers, in place of `fastlstm.get_num_threads`.

    Attributes
    ----------
    model_ : fastlstm.Sequential
    difference_ : tuple of int
        The lags in use.
    n_outputs_ : int
        Columns of y.
    n_features_in_ : int
        Columns of X; 0 without.
    n_iter_ : int
        Epochs of training.
    loss_curve_ : list of float
        The mean squared error in standardized units, for each epoch.
    validation_loss_curve_ : list of float or None
        That of the tail, one step ahead or `horizon` steps.
    best_iteration_ : int
        The epoch with the lowest loss of the tail, from 1; without a tail, of the training.

    Notes
    -----
    Every series is standardized by the mean and the standard deviation of what the network has to
    forecast, over its own training steps. Values are not standardized by those of the tail, and no
    window has a target from it.

    Missing values, uneven steps and series of text are not handled; nor are calendars: give them as
    X. A forecast of the logarithm is the median's rather than the mean's.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMForecaster
    >>> t = np.arange(120)
    >>> y = 0.5 * t + 5 * np.sin(2 * np.pi * t / 12)
    >>> forecaster = LSTMForecaster(random_state=0).fit(y[:108])
    >>> bool(np.abs(forecaster.predict(12) - y[108:]).max() < 1)
    True
    >>> forecaster.update(y[108:]).predict(3).shape
    (3,)
    """

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        dropout: float = 0.0,
        cell: str = "lstm",
        strategy: str = "recursive",
        horizon: int | None = None,
        window: int = 36,
        difference: Any = "auto",
        log: bool = False,
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        max_epochs: int = 300,
        batch_size: int = 16,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 20,
        tol: float = 0.0,
        random_state: Any = None,
        verbose: bool = False,
        dtype: Any = "float32",
        threads: int | None = None,
    ):
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.cell = cell
        self.strategy = strategy
        self.horizon = horizon
        self.window = window
        self.difference = difference
        self.log = log
        self.lr = lr
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype
        self.threads = threads

    def fit(self, y: Any, X: Any = None) -> "LSTMForecaster":
        """Train on one or several series.

        Parameters
        ----------
        y : array (T,) or (T, k), Series, DataFrame, or a list of them
            A list holds several series, of any lengths and of the same columns, for one network.
        X : array (T, d) or DataFrame, or a list of them, optional
            Exogenous values of the same steps. Those of a step are known when it is forecast.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A value does not fit, or a series is too short or has values that are not finite.
        """
        settings = read_settings(self.get_params())
        layout, series = read_layout(y, X, settings["log"])
        fraction = settings["validation_fraction"]
        sizes = [training_size(len(y), fraction) for y, _ in series]
        model, encoding, scalings, history = train(series, sizes, settings)
        network = Network(model, encoding, settings["dtype"], settings["threads"])
        carried, tails = [], []
        for (y, x), size, scaling in zip(series, sizes, scalings, strict=True):
            before = network.begin(y[:size], None if x is None else x[:size], scaling)
            tail = y[size:].copy(), None if x is None else x[size:].copy()
            tails.append(HeldOut(before, *tail))
            carried.append(network.advance(before, *tail))
        self.model_, self.difference_ = model, encoding.lags
        self.n_outputs_, self.n_features_in_ = layout.outputs, layout.features
        self.n_iter_, self.loss_curve_ = history.epochs, history["loss"].tolist()
        self.validation_loss_curve_ = history["val_loss"].tolist() if fraction else None
        best = history.best_epoch
        self.best_iteration_ = self.n_iter_ if best is None else best + 1
        self._network, self._layout, self._carried = network, layout, carried
        self._tails = tails if fraction else []
        self._is_direct = self.strategy == "direct"
        if history.stopped_by == "interrupt":
            warn_user(f"fit: interrupted after {self.n_iter_} epochs")
        return self

    def predict(
        self,
        horizon: int | None = None,
        last_window: Any = None,
        X_future: Any = None,
        X_window: Any = None,
    ) -> Any:
        """Forecast the steps that follow.

        Parameters
        ----------
        horizon : int, optional
            The number of steps; that of the constructor if None. A direct forecaster has no more
            than those.
        last_window : series as y of `fit`, optional
            What to continue in place of the series of `fit` and `update`, read from its first step.
            If `fit` had several series, it is a new one, and standardized by its own numbers.
        X_future : array (horizon, d) or DataFrame, or a list of them
            The exogenous values of these steps, if `fit` had some. A direct forecaster needs those
            of all its steps.
        X_window : array or DataFrame, or a list of them
            The exogenous values of `last_window`.

        Returns
        -------
        array (horizon,) or (horizon, k), Series or DataFrame; a list if y was one
            As y was given, with its columns and the index that follows.

        Raises
        ------
        NotFittedError
        ValueError, TypeError
            An argument does not fit.
        """
        _, layout, _, values = self._forecast(horizon, last_window, X_future, X_window)
        return layout.give(values)

    def predict_interval(
        self,
        horizon: int | None = None,
        coverage: float = 0.9,
        last_window: Any = None,
        X_future: Any = None,
        X_window: Any = None,
    ) -> tuple[Any, Any]:
        """Return the lower and the upper ends of prediction intervals.

        By split conformal prediction, for each column and each step ahead: the half width is a
        quantile of the absolute errors of forecasts, as many steps ahead, that begin at every step
        of the held-out tail. Those of several series count together, each in units of the standard
        deviation by which its series is standardized.

        Parameters
        ----------
        horizon, last_window, X_future, X_window
            As of `predict`.
        coverage : float
            The share of values that should lie within, between 0 and 1.

        Returns
        -------
        lower, upper
            Each as `predict` returns forecasts.

        Raises
        ------
        NotFittedError
        ValueError
            There are too few errors: coverage c takes c / (1 - c) of them at every step ahead, 9
            for 0.9, and a tail of n steps gives n + 1 - h at h steps ahead. Or there is no tail.

        Notes
        -----
        The coverage is exact if errors are exchangeable (Lei, G'Sell, Rinaldo, Tibshirani &
        Wasserman 2018), and is that of each step by itself, not of all steps together. Errors along
        a series are only nearly exchangeable, and the tail has chosen the epoch, too. `update` does
        not change the widths. With ``log=True`` they are widths of logarithms.
        """
        check_is_fitted(self, "model_")
        coverage = read_fraction("coverage", coverage)
        if not self._tails:
            raise ValueError(
                "validation_fraction: expected a tail held out in fit, for intervals, got 0"
            )
        horizon, layout, pasts, values = self._forecast(horizon, last_window, X_future, X_window)
        errors = [tail.errors(self._network, horizon) for tail in self._tails]
        widths = [
            radius(np.concatenate(of_lead), coverage, lead)
            for lead, of_lead in enumerate(zip(*errors, strict=True), 1)
        ]
        halves = [np.stack(widths) * past.scaling.scale[: layout.outputs] for past in pasts]
        lower = [one - half for one, half in zip(values, halves, strict=True)]
        upper = [one + half for one, half in zip(values, halves, strict=True)]
        return layout.give(lower), layout.give(upper)

    def update(self, y_new: Any, X_new: Any = None) -> "LSTMForecaster":
        """Read new values, from which later forecasts go on. Nothing is trained.

        Parameters
        ----------
        y_new : series as y of `fit`
            The steps that follow those seen so far. Of a list, an array may be empty.
        X_new : array or DataFrame, or a list of them
            The exogenous values of these steps, if `fit` had some.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
        ValueError, TypeError
            An argument does not fit; nothing is changed then.
        """
        check_is_fitted(self, "model_")
        steps = self._layout.next_steps("y_new", y_new, "X_new", X_new)
        pairs = zip(self._carried, steps, strict=True)
        self._carried = [self._network.advance(past, y, x) for past, (y, x) in pairs]
        self._layout = self._layout.after(steps)
        return self

    def score(self, y: Any, X: Any = None) -> float:
        """Return the coefficient of determination, R², of forecasts of the steps that follow.

        So ``GridSearchCV(forecaster, ..., cv=TimeSeriesSplit()).fit(y)`` searches.

        Parameters
        ----------
        y : series as y of `fit`
            The true values; as many steps are forecast.
        X : array or DataFrame, or a list of them
            Their exogenous values, if `fit` had some.

        Returns
        -------
        float
            At most 1; the mean over columns and series.
        """
        check_is_fitted(self, "model_")
        steps = self._layout.next_steps("y", y, "X", X)
        scores = []
        for past, (truth, x) in zip(self._carried, steps, strict=True):
            horizon = self._read_horizon(len(truth))
            future = None if x is None else x[None]
            found = self._network.forecast([past], future, horizon)[0]
            scores.append(r2_score(self._layout.outer(truth), self._layout.outer(found)))
        return float(np.mean(scores))

    def _forecast(
        self, horizon: Any, last_window: Any, X_future: Any, X_window: Any
    ) -> tuple[int, Layout, list[Carried], list[np.ndarray]]:
        """Return the horizon, and of each series its layout, its past and its next values."""
        check_is_fitted(self, "model_")
        horizon, network = self._read_horizon(horizon), self._network
        layout, pasts = self._layout, self._carried
        if last_window is None and X_window is not None:
            raise ValueError("X_window: expected None without last_window")
        if last_window is not None:
            layout, windows = layout.windows(last_window, X_window)
            pasts = [self._begin(y, x) for y, x in windows]
        rows = network.encoding.leads if self._is_direct else horizon
        future = layout.future(X_future, rows)
        values = [
            network.forecast([past], None if x is None else x[None], horizon)[0]
            for past, x in zip(pasts, future, strict=True)
        ]
        return horizon, layout, pasts, values

    def _begin(self, y: np.ndarray, x: np.ndarray | None) -> Carried:
        """Read a last window."""
        encoding, scaling = self._network.encoding, self._carried[0].scaling
        least = encoding.kept
        if self._layout.is_list:
            least = max(least, encoding.depth + encoding.leads + 2)
        if len(y) < least:
            raise ValueError(f"last_window: expected at least {least} steps, got {len(y)}")
        if self._layout.is_list:
            scaling = measure_scaling(encoding.targets(y))
        return self._network.begin(y, x, scaling)

    def _read_horizon(self, horizon: Any) -> int:
        if horizon is None:
            horizon = self.horizon
        if horizon is None:
            raise ValueError("horizon: expected a number of steps, here or in the constructor")
        steps, leads = read_size("horizon", horizon), self._network.encoding.leads
        if self._is_direct and steps > leads:
            raise ValueError(f"horizon: expected at most the {leads} of fit, got {steps}")
        return steps
