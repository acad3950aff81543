"""The training of a forecaster: its plain values, checked, and a network trained by them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from fastlstm.checks import read_dtype, read_flag, read_number, read_size
from fastlstm.in_sklearn.forecast.encoding import Encoding, choose_lags
from fastlstm.in_sklearn.forecast.layout import Steps
from fastlstm.in_sklearn.forecast.windows import held_out_steps, training_windows
from fastlstm.in_sklearn.network import CLIP_NORM, build_network
from fastlstm.in_sklearn.scaling import Scaling, measure_scaling
from fastlstm.layers.sequential import Sequential
from fastlstm.training.callbacks import EarlyStopping
from fastlstm.training.history import History
from fastlstm.training.optim.adam import AdamW
from fastlstm.training.trainer import Trainer


def read_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a forecaster's constructor, checked but for those of the network.

    "leads" is among them: the steps that the network forecasts at once.
    """
    settings = dict(given)
    strategy, horizon = given["strategy"], given["horizon"]
    if strategy not in ("recursive", "direct"):
        raise ValueError(f'strategy: expected "recursive" or "direct", got {strategy!r}')
    if horizon is not None:
        horizon = settings["horizon"] = read_size("horizon", horizon)
    elif strategy == "direct":
        raise ValueError('horizon: expected a number of steps for strategy="direct", got None')
    settings["leads"] = horizon if strategy == "direct" else 1
    settings["difference"] = _read_difference(given["difference"])
    for name in ("window", "max_epochs", "batch_size", "n_iter_no_change"):
        settings[name] = read_size(name, given[name])
    for name in ("lr", "weight_decay", "tol"):
        settings[name] = read_number(name, given[name], 0, np.inf)
    for name in ("log", "early_stopping", "verbose"):
        settings[name] = read_flag(name, given[name])
    fraction = read_number(
        "validation_fraction", given["validation_fraction"], 0, 1, open_above=True
    )
    if settings["early_stopping"] and not fraction:
        raise ValueError("validation_fraction: expected above 0 for early_stopping=True, got 0")
    settings["validation_fraction"] = fraction
    settings["dtype"] = read_dtype("dtype", given["dtype"])
    if given["threads"] is not None:
        settings["threads"] = read_size("threads", given["threads"])
    return settings


def train(
    series: Sequence[Steps], sizes: Sequence[int], settings: dict[str, Any]
) -> tuple[Sequential, Encoding, list[Scaling], History]:
    """Train a network on the first steps of series, and validate it on the others.

    Parameters
    ----------
    series : sequence of (y, x)
    sizes : sequence of int
        Of each series, the steps before its tail.
    settings : dict
        From `read_settings`.

    Returns
    -------
    model : Sequential
    encoding : Encoding
    scalings : list of Scaling
        Of the targets of each series.
    history : History
    """
    dtype = settings["dtype"]
    pairs = zip(series, sizes, strict=True)
    training = [(y[:size], None if x is None else x[:size]) for (y, x), size in pairs]
    lags = choose_lags(settings["difference"], [y for y, _ in training])
    exogenous = None
    if training[0][1] is not None:
        exogenous = measure_scaling(np.concatenate([x for _, x in training if x is not None]))
    encoding = Encoding(lags, settings["leads"], exogenous)
    for place, ((y, _), size) in enumerate(zip(series, sizes, strict=True)):
        name = f"y[{place}]" if len(series) > 1 else "y"
        _check_length(name, len(y), size, encoding)
    scalings = [measure_scaling(encoding.targets(y)) for y, _ in training]

    windows = training_windows(encoding, training, scalings, settings["window"], dtype)
    held_out = None
    if settings["validation_fraction"]:
        tails = held_out_steps(encoding, series, scalings, sizes, dtype)
        held_out = tails.x, tails.y, {"sample_weight": tails.sample_weight}
    seed = int(check_random_state(settings["random_state"]).randint(2**31 - 1))
    model = build_network(
        windows.x[0].shape[1],
        windows.y[0].shape[1],
        **{name: settings[name] for name in ("cell", "hidden_size", "num_layers", "dropout")},
        pooling=None,
        dtype=dtype,
        rng=np.random.default_rng(seed),
    )
    stopping = None
    if settings["early_stopping"]:
        stopping = EarlyStopping(settings["n_iter_no_change"], settings["tol"])
    optimizer = AdamW(settings["lr"], weight_decay=settings["weight_decay"])
    trainer = Trainer(
        model, "mse", optimizer, clip_norm=CLIP_NORM, seed=seed, threads=settings["threads"]
    )
    history = trainer.fit(
        windows.x,
        windows.y,
        epochs=settings["max_epochs"],
        batch_size=settings["batch_size"],
        validation=held_out,
        early_stopping=stopping,
        restore_best=stopping is not None,
        progress=settings["verbose"],
    )
    return model, encoding, scalings, history


def _read_difference(value: Any) -> Any:
    """ "auto", or lags."""
    if value is None:
        return ()
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f'difference: expected "auto", None or lags, got {value!r}')
        return value
    lags = value if isinstance(value, (tuple, list)) else [value]
    return tuple(read_size("difference", lag) for lag in lags)


def _check_length(name: str, length: int, size: int, encoding: Encoding) -> None:
    """Raise ValueError unless a series has two training steps, and a step of its tail counts."""
    least = encoding.depth + encoding.leads + 2
    tail = length - size
    if size < least or 0 < tail < encoding.leads:
        raise ValueError(
            f"{name}: expected at least {least} training steps, for {encoding.leads} ahead and "
            f"differences over {encoding.depth}, and {encoding.leads} held-out ones, got {size} "
            f"and {tail}"
        )
