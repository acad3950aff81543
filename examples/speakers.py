"""Who says the vowels? A classifier of scikit-learn's kind, on sequences of 7 to 29 steps.

Japanese Vowels (Kudo, Toyama & Shimbo 1999) has 12 numbers a step of nine speakers. It comes with
aeon; without it, made-up speakers stand in.
"""

import sys

import numpy as np

from fastlstm.sklearn import LSTMClassifier


def load():
    """The sequences, (T_k, 12) each, and their speakers: for training, and new ones."""
    try:
        from aeon.datasets import load_japanese_vowels
    except ModuleNotFoundError:
        return [make_vowels(seed) for seed in (1, 2)]
    parts = (load_japanese_vowels(part) for part in ("train", "test"))
    return [([one.T for one in x], y) for x, y in parts]


def make_vowels(seed, count=270):
    """Each speaker moves from one point to another, at a pace that differs."""
    ends = np.random.default_rng(0).standard_normal((9, 2, 12))
    rng = np.random.default_rng(seed)
    speakers, x = rng.integers(9, size=count), []
    for speaker in speakers:
        way = np.linspace(0, 1, rng.integers(7, 30))[:, None]
        start, end = ends[speaker]
        x.append(start + way * (end - start) + 0.5 * rng.standard_normal((len(way), 12)))
    return x, speakers


def main():
    epochs, bar = (15, 0.8) if "--quick" in sys.argv else (100, 0.95)
    (x, y), (new_x, new_y) = load()
    classifier = LSTMClassifier(max_epochs=epochs, random_state=0).fit(x, y)
    accuracy = classifier.score(new_x, new_y)
    print(f"{accuracy:.1%} of {len(new_x)} new sequences are of the speaker that is named")
    sure = classifier.predict_steps(new_x[:3], proba=True)
    for one, speaker in zip(sure, new_y, strict=False):
        heard = one[:, list(classifier.classes_).index(speaker)]
        print(f"speaker {speaker}, after every other step: {heard[::2].round(2)}")
    assert accuracy > bar, f"expected an accuracy above {bar}"


if __name__ == "__main__":
    main()
