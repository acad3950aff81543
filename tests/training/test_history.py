"""The record of training, its files and its display."""

import csv
import io
import sys

import numpy as np
import pytest
from runs import Watch, ragged, tagger

import fastlstm as fl


def fit(rng, **options):
    x, y = ragged(rng)
    trainer = fl.Trainer(tagger(), "mse", fl.optim.SGD(0.1))
    return trainer.fit(x, y, **{"epochs": 3, "batch_size": 4, "progress": False} | options)


def test_arrays_by_name(rng):
    history = fit(rng, validation=0.2)
    assert set(history) == {"loss", "val_loss", "lr"}
    assert isinstance(history["loss"], np.ndarray)
    assert history["loss"].shape == (3,)
    assert history.best_epoch == history["val_loss"].argmin()
    with pytest.raises(KeyError, match="val_acc"):
        history["val_acc"]


def test_json_and_back(rng):
    history = fit(rng)
    history.append({"loss": np.nan, "lr": np.inf})
    again = fl.History.from_json(history.to_json())
    assert again.to_json() == history.to_json()
    assert "NaN" not in history.to_json()
    np.testing.assert_array_equal(again["loss"], history["loss"])
    assert again["lr"][-1] == np.inf
    assert again.best_epoch == history.best_epoch


def test_plot(rng):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    history = fit(rng, validation=0.2)
    history.best_epoch = 1
    axes = plt.subplots()[1]
    assert history.plot(ax=axes) is axes
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss", "best epoch"]
    for line, name in zip(axes.lines, ["loss", "val_loss"], strict=False):
        assert list(line.get_xdata()) == [1, 2, 3]
        np.testing.assert_array_equal(line.get_ydata(), history[name])
    assert list(axes.lines[2].get_xdata()) == [2, 2]
    assert len({line.get_linestyle() for line in axes.lines}) == 3  # read without color
    own = history.plot(["lr"])
    assert own is not axes
    assert [line.get_label() for line in own.lines] == ["lr", "best epoch"]
    with pytest.raises(KeyError, match="val_acc"):
        history.plot(["val_acc"])
    fl.History().plot()
    plt.close("all")


def test_plot_without_matplotlib(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'^a plot needs matplotlib: .*"fastlstm\[plot\]"'):
        fit(rng).plot()


def test_csv(rng, tmp_path):
    path = tmp_path / "log.csv"
    logger = fl.CSVLogger(path)
    for _ in range(2):  # a logger can be used again
        history = fit(rng, callbacks=[logger], validation=0.2)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"].tolist()


def test_callbacks_are_called_and_stop(rng):
    watch = Watch(epoch=1)
    history = fit(rng, epochs=5, callbacks=[watch, Watch()])
    assert (watch.begun, watch.ended, len(watch.losses), len(watch.epochs)) == (1, 1, 6, 2)
    assert watch.epochs[1]["loss"] == history["loss"][1]
    assert history.stopped_by == "callback"
    history = fit(rng, epochs=5, callbacks=[Watch(step=4)])
    assert history.epochs == 2  # of the second, the means of one step


def test_lines_where_there_is_no_terminal(rng, capsys):
    fit(rng, progress=True, validation=0.2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/3: loss ")
    assert all(part in lines[0] for part in ("val_loss", "sequences/s", "left"))
    fit(rng)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal(rng, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("fastlstm.training.progress.PAUSE", 0.0)
    fit(rng, progress=True, metrics=size)
    shown = terminal.getvalue().split("\r")
    assert "33/33" in shown[-1]
    assert "epoch 3/3" in shown[-1]
    assert "size" in shown[-1]
    assert capsys.readouterr().out == ""


def test_a_bar_of_batches_learns_the_number_of_sequences(rng, monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    batches = [(np.zeros((5, 4, 3)), np.zeros((5, 4, 2)))] * 2
    trainer = fl.Trainer(tagger(), "mse", fl.optim.SGD(0.1))
    trainer.fit(batches, epochs=3)
    assert "30/30" in terminal.getvalue().split("\r")[-1]


def test_without_tqdm_a_terminal_shows_lines(rng, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    fit(rng, progress=True)
    assert len(capsys.readouterr().out.splitlines()) == 3


def size(pred, target):
    return float(np.abs(pred).mean())
