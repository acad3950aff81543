"""Forecasting: the sunspots of the next year, from those of 30 years before.

The series is statsmodels': pip install "fastlstm[examples]".
"""

import sys

import numpy as np

import fastlstm as fl

YEARS, FIRST_TEST = 30, 1960  # of a window; the years from here on are not learned from


def load():
    """The years, 1700 to 2008, and the mean number of sunspots in each."""
    try:
        from statsmodels.datasets import sunspots
    except ModuleNotFoundError as error:
        if error.name != "statsmodels":
            raise
        sys.exit('The series needs statsmodels: pip install "fastlstm[examples]"')
    data = sunspots.load_pandas().data
    return data["YEAR"].to_numpy(int), data["SUNACTIVITY"].to_numpy()


def main():
    epochs = 40 if "--quick" in sys.argv else 150
    years, spots = load()
    series = np.sqrt(spots) / 5 - 1  # even in spread, and about 0
    x = np.lib.stride_tricks.sliding_window_view(series[:-1], YEARS)[..., None]  # (N, YEARS, 1)
    y, target_years = series[YEARS:, None], years[YEARS:]
    learned = target_years < FIRST_TEST

    rng = np.random.default_rng(0)
    model = fl.Sequential(fl.LSTM(1, 16, rng=rng), fl.Last(), fl.Linear(16, 1, rng=rng))
    steps = epochs * -(-learned.sum() // 16)
    schedule = fl.schedules.cosine(1e-2, int(steps))
    trainer = fl.Trainer(model, "mse", fl.optim.AdamW(), schedule=schedule, clip_norm=1.0)
    trainer.fit(x[learned], y[learned], epochs=epochs, batch_size=16, progress=False)

    forecast = 25 * (trainer.predict(x[~learned])[:, 0] + 1) ** 2
    truth, before = spots[YEARS:][~learned], spots[YEARS - 1 : -1][~learned]
    error, naive = (np.sqrt(np.mean((a - truth) ** 2)) for a in (forecast, before))
    for year, one, seen in list(zip(target_years[~learned], forecast, truth, strict=True))[-5:]:
        print(f"{year}: forecast {one:5.1f}, seen {seen:5.1f}")
    print(f"error {error:.1f} sunspots, of last year's number {naive:.1f} (root of mean square)")
    assert error < 0.8 * naive, "expected a much smaller error than that of last year's number"


if __name__ == "__main__":
    main()
