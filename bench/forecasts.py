"""How good the forecaster is as it comes: beside the last value, the last season and Holt-Winters.

Series of statsmodels, and series that are drawn: pip install "fastlstm[sklearn,examples]". Each is
forecast 12 steps ahead from several origins, 12 steps apart. No value is changed for a series.
"""

import argparse
import sys
import warnings
from dataclasses import dataclass

import numpy as np

from fastlstm.sklearn import LSTMForecaster

HORIZON = 12


@dataclass(frozen=True)
class Series:
    values: np.ndarray
    season: int | None
    grows: bool = False  # whether the season grows with the level


def load():
    """The series by name."""
    from statsmodels.datasets import co2, elnino, macrodata, nile, sunspots

    air = co2.load_pandas().data["co2"].resample("MS").mean().interpolate()
    warmth = elnino.load_pandas().data.iloc[:, 1:].to_numpy().ravel()
    economy = macrodata.load_pandas().data
    found = {
        "co2, monthly": Series(air.to_numpy(), 12),
        "sea surface, monthly": Series(warmth[-360:], 12),
        "sunspots, yearly": Series(sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), None),
        "Nile, yearly": Series(nile.load_pandas().data["volume"].to_numpy(), None),
        "real GDP, quarterly": Series(economy["realgdp"].to_numpy(), None),
        "unemployment, quarterly": Series(economy["unemp"].to_numpy(), None),
    }
    rng, t = np.random.default_rng(0), np.arange(204)
    wave = np.sin(2 * np.pi * t / 12) + 0.4 * np.cos(4 * np.pi * t / 12)
    found["drawn: trend + season"] = Series(50 + t / 2 + 10 * wave + rng.normal(0, 2, 204), 12)
    growing = np.exp(4.5 + 0.01 * t + 0.2 * wave + rng.normal(0, 0.04, 204))
    found["drawn: trend · season"] = Series(growing, 12, grows=True)
    noise, shifted = rng.normal(size=(2, 300)), np.repeat([20.0, 26.0], 150)
    for step in range(1, 300):
        noise[:, step] += 0.8 * noise[:, step - 1]
    found["drawn: AR(1), φ = 0.8"] = Series(20 + noise[0], None)
    found["drawn: AR(1), level shift"] = Series(shifted + noise[1], None)
    return found


def smoothed(values, series):
    """The forecast of Holt-Winters' exponential smoothing, with a trend that is damped."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    kind = None if series.season is None else "mul" if series.grows else "add"
    model = ExponentialSmoothing(
        values,
        trend="add",
        damped_trend=True,
        seasonal=kind,
        seasonal_periods=series.season,
        initialization_method="estimated",
    )
    return model.fit().forecast(HORIZON)


def errors(series, origins, seeds):
    """Mean absolute errors by method, (origins, ...)."""
    found = {"last value": [], "last season": [], "Holt-Winters": [], "forecaster": []}
    for origin in range(len(series.values) - HORIZON * origins, len(series.values), HORIZON):
        values, truth = series.values[:origin], series.values[origin : origin + HORIZON]
        season = values[-(series.season or 1) :]
        forecasts = {
            "last value": [values[-1]],
            "last season": [np.resize(season, HORIZON)],
            "Holt-Winters": [smoothed(values, series)],
            "forecaster": [
                LSTMForecaster(random_state=seed, log=series.grows).fit(values).predict(HORIZON)
                for seed in range(seeds)
            ],
        }
        for name, all_of_them in forecasts.items():
            found[name].append([np.abs(truth - one).mean() for one in all_of_them])
    return {name: np.array(rows) for name, rows in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--origins", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="statsmodels")
    try:
        every = load()
    except ModuleNotFoundError as error:
        if error.name != "statsmodels":
            raise
        sys.exit('The series need statsmodels: pip install "fastlstm[examples]"')
    print("| series | last value | last season | Holt-Winters | forecaster | of seeds |")
    print("|---|---|---|---|---|---|")
    ratios = {"the better of both old values": [], "Holt-Winters": []}
    for name, series in every.items():
        found = errors(series, arguments.origins, arguments.seeds)
        means = {method: rows.mean() for method, rows in found.items()}
        by_seed = found["forecaster"].mean(axis=0)
        ours = means["forecaster"]
        ratios["the better of both old values"].append(
            ours / min(means["last value"], means["last season"])
        )
        ratios["Holt-Winters"].append(ours / means["Holt-Winters"])
        season = f"{means['last season']:.3g}" if series.season else "—"
        print(
            f"| {name} | {means['last value']:.3g} | {season} | {means['Holt-Winters']:.3g} | "
            f"{ours:.3g} | {by_seed.min():.3g} to {by_seed.max():.3g} |",
            flush=True,
        )
    for name, values in ratios.items():
        print(
            f"\nerror beside {name}: {np.exp(np.log(values).mean()):.2f} (geometric mean), lower "
            f"on {np.sum(np.less(values, 1))} of {len(values)} series"
        )


if __name__ == "__main__":
    main()
