"""A training run with checkpoints, as a script: ``python kept_run.py FOLDER EVERY``."""

import hashlib
import sys

import numpy as np

import fastlstm as fl


def run(folder, every="epoch", callbacks=(), **changes):
    """Train on ragged data with dropout, a schedule, early stopping and validation."""
    rng = np.random.default_rng(0)
    given = {"rows": 23, "hidden": 4, "dropout": 0.2, "lr": 0.05, "seed": 3, "clip_norm": 1.0}
    given |= {"epochs": 9, "batch_size": 4, "validation": 0.25, "patience": 2, "steps": 40}
    given |= changes
    x = [rng.standard_normal((n, 3)) for n in rng.integers(1, 9, given["rows"])]
    y = [one.cumsum(axis=0) for one in x]
    H, p = given["hidden"], given["dropout"]
    model = fl.Sequential(
        fl.LSTM(3, H, 2, dropout=p, zoneout=(p, p), recurrent_dropout=p, rng=0),
        fl.Dropout(p),
        fl.Linear(H, 3, rng=0),
    )
    trainer = fl.Trainer(
        model,
        "mse",
        fl.optim.Adam(given["lr"]),
        schedule=fl.schedules.linear(0.5, given["steps"]),
        clip_norm=given["clip_norm"],
        seed=given["seed"],
    )
    history = trainer.fit(
        x,
        y,
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        validation=given["validation"],
        early_stopping=fl.EarlyStopping(given["patience"]),
        checkpoint=folder,
        checkpoint_every=every,
        callbacks=callbacks,
        progress=False,
    )
    return bits(trainer, history)


def bits(trainer, history):
    """A digest of all that a run leaves."""
    digest = hashlib.sha256(history.to_json().encode())
    for state in (trainer.model.state_dict(), trainer.optimizer.state_dict()):
        for name, value in state.items():
            digest.update(f"{name} {np.asarray(value).tolist()}".encode())
    return f"{trainer.epoch} {trainer.step} {history.stopped_by} {digest.hexdigest()}"


if __name__ == "__main__":
    folder, every = sys.argv[1:]
    print(run(folder, every if every == "epoch" else int(every)))
