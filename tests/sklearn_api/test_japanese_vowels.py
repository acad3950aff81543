"""Japanese Vowels (Kudo, Toyama & Shimbo 1999): nine speakers, 12 channels, 7 to 29 steps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastlstm.sklearn import LSTMClassifier

PLACES = {"aeon": "datasets/data/JapaneseVowels", "sktime": "datasets/data/JapaneseVowels"}


def read(path):
    """The sequences (T_k, 12) of a .ts file, and their labels."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.lower().startswith("@data"))
    x, y = [], []
    for line in filter(None, lines[start + 1 :]):
        *channels, label = line.split(":")
        x.append(np.array([one.split(",") for one in channels], float).T)
        y.append(label)
    return x, np.array(y)


@pytest.fixture(scope="module")
def vowels():
    for package, place in PLACES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None:
            folder = Path(spec.origin).parent / place
            if folder.is_dir():
                return [read(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    pytest.skip("Japanese Vowels are in the package data of aeon and sktime: neither is installed")
    return None


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_defaults_know_the_speakers(seed, vowels):
    (x, y), (new_x, new_y) = vowels
    assert (len(x), len(new_x), len(set(y))) == (270, 370, 9)
    model = LSTMClassifier(random_state=seed).fit(x, y)
    assert model.score(new_x, new_y) >= 0.96


def test_two_sequences_a_class_are_enough_to_train(vowels):
    (x, y), _ = vowels
    rows = np.concatenate([np.flatnonzero(y == label)[:2] for label in np.unique(y)])
    few = [x[row] for row in rows]
    assert len({len(one) for one in few}) > 2
    model = LSTMClassifier(random_state=0).fit(few, y[rows])
    assert model.score(few, y[rows]) == 1
