"""The demo's text and its model."""

import lzma
import math
import zlib

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.commands import compressors, corpus, step_times
from fastlstm.commands.character_model import CharacterModel, frequent_bytes
from fastlstm.commands.character_training import (
    ROWS,
    STEPS,
    Clock,
    LossCurve,
    cut,
    make_trainer,
    text_read,
)

TEXT = b"she sells sea shells by the sea shore; " * 300


@pytest.fixture
def model():
    return CharacterModel(frequent_bytes(TEXT), embedding_size=5, hidden_size=7, rng=2)


def one_by_one(model, context, text):
    """Bits per byte, read in one go and scored by hand."""
    symbols = model.encode(context[-257:] + text)
    logits, _ = model.layers(symbols[:-1, None])
    logits = logits[:, 0].astype(np.float64)[-len(text) :]
    target = symbols[-len(text) :]
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(text)), target]
    rare = (target == model.unknown) * math.log2(256 - len(model.known))
    return (nats / math.log(2) + rare).mean()


@pytest.mark.parametrize("text", [b"sea", TEXT[5:905], TEXT[:400] + "ñ".encode() * 20])
def test_bits_in_one_row(model, text):
    bits = model.bits_per_character(TEXT, text)
    assert bits == pytest.approx(one_by_one(model, TEXT, text), rel=1e-5)


def test_bits_in_many_rows(model):
    text = TEXT[7 : 7 + 4321]  # 8 rows, the last one shorter
    bits = model.bits_per_character(TEXT, text)
    assert bits == pytest.approx(one_by_one(model, TEXT, text), rel=1e-4)


def test_every_byte_is_coded(model):
    # Summed over all texts of one byte, the probabilities are 1.
    bits = [model.bits_per_character(b"sea ", bytes([byte])) for byte in range(256)]
    assert sum(2.0**-b for b in bits) == pytest.approx(1, abs=1e-5)


def test_rare_bytes_have_no_symbol():
    known = frequent_bytes(b"a" * 150_000 + b"b" * 2 + b"c")
    assert known.tobytes() == b"ab"


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "model.npz")
    loaded = CharacterModel.load(tmp_path / "model.npz")
    assert loaded.bits_per_character(TEXT, TEXT) == model.bits_per_character(TEXT, TEXT)
    assert loaded.write(b"sea", 20, 0.7, rng=1) == model.write(b"sea", 20, 0.7, rng=1)


def test_writes_known_bytes(model):
    written = model.write(b"s", 50, 1.0, rng=0)
    assert len(written) == 50
    assert set(written) <= set(TEXT)


def test_training_learns(model):
    streams = cut(model, TEXT)
    losses = make_trainer(model).fit(streams, epochs=6, progress=False)["loss"]
    assert len(streams) == 11
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("steps", [1, 11, 60])
def test_text_read_is_what_was_read(model, steps):
    streams = cut(model, TEXT)
    read, length = min(steps, 11) * STEPS + 1, 11 * STEPS
    expected = [TEXT[row * length : row * length + read] for row in range(ROWS)]
    assert text_read(TEXT, steps * ROWS * STEPS) == b"".join(expected)
    ((x, y, *_),) = [
        b for k, b in enumerate(streams.batches(ROWS, None, 0)) if k == read // STEPS - 1
    ]
    for row, part in enumerate(expected):
        np.testing.assert_array_equal(model.encode(part)[-STEPS - 1 : -1], x[row])
        np.testing.assert_array_equal(model.encode(part)[-STEPS:], y[row])


def test_the_learning_rate_follows_the_time():
    clock = Clock(10.0, tqdm=None)
    rates = []
    for elapsed in (0.0, 5.0, 10.0, 11.0):
        clock.elapsed = elapsed
        rates.append(clock.learning_rate(3))
    np.testing.assert_allclose(rates, [6e-3, 3e-3, 0, 0], atol=1e-12)


def test_step_times(model, tmp_path):
    model.save(tmp_path / "model.npz")
    times = step_times.measure(tmp_path / "model.npz")
    assert times.keys() == {fl.backend(), "reference"}
    assert min(times.values()) > 0


def test_loss_curve():
    curve = LossCurve(seconds=12.0)
    for elapsed, nats in [(0.01, 4.0), (0.02, 2.0), (7.0, 1.0)]:
        curve.add(elapsed, nats * math.log(2))
    seconds, bits = curve.points()
    np.testing.assert_allclose(seconds, [0.05, 7.05])
    np.testing.assert_allclose(bits, [3.0, 1.0])
    assert curve.running == pytest.approx(7 / 3)


def test_standard_library():
    data = corpus.standard_library()
    assert data == corpus.standard_library()
    assert len(data.held_out) == corpus.HELD_OUT_SIZE
    assert len(data.training) > 4_000_000
    start = data.held_out[:3000]
    assert start not in data.training


def test_end_of_a_file_is_held_out(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    data = corpus.from_file(path)
    assert data.training + data.held_out == TEXT
    assert len(data.held_out) == len(TEXT) // 10


def test_compressors():
    text = bytes(np.random.default_rng(0).integers(32, 127, 3000, dtype=np.uint8))
    zlib_, bz2_, lzma_ = compressors.compare(text, text[:1000])
    assert zlib_.cold == len(zlib.compress(text[:1000], 9)) * 8 / 1000
    assert lzma_.cold == len(lzma.compress(text[:1000], preset=9)) * 8 / 1000
    assert zlib_.primed < 0.5 < zlib_.cold  # it has read this before
    assert lzma_.primed < 0.5 < lzma_.cold
    assert bz2_.primed is None
    assert bz2_.best == bz2_.cold
