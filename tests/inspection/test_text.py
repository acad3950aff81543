"""A text whose characters are colored by a unit."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.commands.character_model import CharacterModel
from fastlstm.inspection.text import text_trace
from fastlstm.inspection.trace import trace

TEXT = 'if a < b:\n    x = "&amp;"  # naïve €\n\tend'


@pytest.fixture(autouse=True)
def _close():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def model():
    return fl.Sequential(
        fl.Embedding(256, 5, rng=0), fl.LSTM(5, 7, num_layers=2, rng=1), fl.Linear(7, 3, rng=2)
    )


def of_bytes(model, text, layer=-1):
    """The arrays of a layer at the last byte of each character."""
    data = text.encode()
    ends = [len(text[: place + 1].encode()) - 1 for place in range(len(text))]
    arrays = trace(model, np.frombuffer(data, np.uint8)[:, None]).layers[layer].arrays
    return {name: array[ends, 0] for name, array in arrays.items()}


class Page(HTMLParser):
    """The elements of a page, and the text of its <pre>."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.characters, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag or self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "i":
            self.characters.append(data)


def test_values_are_those_of_the_trace(model):
    arrays = of_bytes(model, TEXT)
    shown = text_trace(model, TEXT, unit=3)
    assert (shown.text, shown.what, shown.unit) == (TEXT, "cell", 3)
    np.testing.assert_array_equal(shown.values, np.tanh(arrays["cell"][:, 3]))
    shown = text_trace(model, TEXT, unit=-1, what="forget_gate")
    assert shown.unit == 6
    np.testing.assert_array_equal(shown.values, arrays["forget_gate"][:, 6])
    shown = text_trace(model, TEXT, unit=0, what="hidden", layer=0)
    np.testing.assert_array_equal(shown.values, of_bytes(model, TEXT, 0)["hidden"][:, 0])


@pytest.mark.parametrize("what", ["cell", "input_gate"])
def test_the_most_active_unit(model, what):
    values = of_bytes(model, TEXT)[what]
    values = np.tanh(values) if what == "cell" else values
    assert text_trace(model, TEXT, what=what).unit == values.std(axis=0).argmax()


def test_batch_first_is_one_sequence_too():
    options = {"rng": 1, "batch_first": True}
    model = fl.Sequential(fl.Embedding(256, 5, rng=0), fl.LSTM(5, 7, **options))
    plain = fl.Sequential(fl.Embedding(256, 5, rng=0), fl.LSTM(5, 7, rng=1))
    values = text_trace(model, TEXT, unit=2).values
    np.testing.assert_array_equal(values, text_trace(plain, TEXT, unit=2).values)


def test_a_model_with_its_own_alphabet():
    model = CharacterModel(np.arange(32, 127, dtype=np.uint8), 4, 6, rng=0)
    shown = text_trace(model.layers, "né!", unit=1, encode=model.encode)
    cell = trace(model.layers, model.encode("né!")[:, None]).layers[0].cell
    np.testing.assert_array_equal(shown.values, np.tanh(cell[[0, 2, 3], 0, 1]))


def test_features_for_a_model_without_an_embedding():
    model = fl.LSTM(3, 4, rng=0)
    x = np.eye(3)[["abc".index(character) for character in "abcab"]]
    shown = text_trace(model, "abcab", unit=2, what="hidden", encode=lambda text: x)
    np.testing.assert_array_equal(shown.values, model(x)[0][:, 2])


def test_html_has_an_element_for_every_character(model):
    shown = text_trace(model, TEXT + "\r<script>alert(1)</script>", unit=3)
    page = Page(shown.html)
    elements = [attributes for tag, attributes in page.tags if tag == "i"]
    assert "".join(page.characters) == shown.text
    assert len(page.characters) == len(elements) == len(shown.text)
    assert {tag for tag, _ in page.tags} == {"style", "div", "small", "pre", "i"}
    for element, value, character in zip(elements, shown.values, shown.text, strict=True):
        kinds = element.get("class", "").split()
        assert ("n" in kinds) == (value < 0)
        assert ("b" in kinds) == (character == "\n")
        assert float(element["style"].removeprefix("--v:")) == pytest.approx(abs(value), abs=0.006)
        assert float(element["title"]) == pytest.approx(value, abs=0.0006)
    assert all(f">{code}</i>" in shown.html for code in ("&lt;", "&gt;", "&amp;", "&quot;"))
    assert shown._repr_html_() == shown.html
    assert "unit 3" in shown.html


def test_html_is_alone_and_follows_dark_mode(model, tmp_path):
    shown = text_trace(model, TEXT)
    path = tmp_path / "text.html"
    shown.to_html(path)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert shown.html in page
    assert "color-scheme:light dark" in page
    assert "prefers-color-scheme:dark" in shown.html
    assert not re.search(r"http|src=|href=|@import|url\(", page)
    assert "{" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("what", ["hidden", "output_gate"])
def test_picture(model, what):
    plt = pytest.importorskip("matplotlib.pyplot")
    shown = text_trace(model, TEXT, what=what, layer=0, unit=3)
    axes = plt.subplots()[1]
    assert shown.plot(ax=axes, columns=9) is axes
    drawn = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    lines = ["if a < b:", "\n", '    x = "', '&amp;"  #', " naïve €\n", "\tend"]
    assert drawn.shape == (len(lines), 9)
    places = [(k, column) for k, line in enumerate(lines) for column in range(len(line))]
    np.testing.assert_array_equal([drawn[place] for place in places], shown.values)
    assert np.isfinite(drawn).sum() == len(TEXT)
    texts = {
        (text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts
    }
    assert "".join(texts[place] for place in places) == re.sub(r"\t", "□", TEXT.replace("\n", "↵"))
    bars = {tuple(bar.mean(axis=0)) for lines in axes.collections for bar in lines.get_segments()}
    below = [place for place, value in zip(places, shown.values, strict=True) if value < 0]
    assert {(round(x), round(y - 0.42)) for x, y in bars} == {(x, y) for y, x in below}
    assert len(bars) == (11 if what == "hidden" else 0)


def test_png(model, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    path = tmp_path / "text.png"
    text_trace(model, "$x$ \0 中 😀").to_png(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": ""}, ValueError, r"text: expected at least one character"),
        ({"text": b"ab"}, TypeError, r"text: expected a str, got bytes"),
        ({"unit": 7}, ValueError, r"unit: expected -7 to 6, got 7"),
        ({"layer": 2}, ValueError, r"layer: expected -2 to 1, got 2"),
        ({"what": "reset_gate"}, ValueError, r"what: expected one of .*'cell'.*got 'reset_gate'"),
        (
            {"encode": lambda text: np.zeros((3, 1), int)},
            ValueError,
            r"encode: expected a step for each of 2 characters or 4 bytes, got 3",
        ),
        (
            {"encode": lambda text: np.zeros((2, 3), int)},
            ValueError,
            r"encode: expected one sequence, got 3",
        ),
    ],
)
def test_errors_name_the_argument(model, options, error, message):
    with pytest.raises(error, match=message):
        text_trace(model, **{"text": "a€", **options})


@pytest.mark.parametrize("first", [fl.LSTM(5, 7), fl.Embedding(255, 5)])
def test_a_model_that_does_not_read_bytes(first):
    model = fl.Sequential(fl.Sequential(first), fl.LSTM(7 if isinstance(first, fl.LSTM) else 5, 6))
    with pytest.raises(ValueError, match=r"encode: expected a function from a text to the model's"):
        text_trace(model, "abc")


def test_png_without_matplotlib(model, monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = text_trace(model, "abc")
    for draw in (shown.plot, lambda: shown.to_png(tmp_path / "text.png")):
        with pytest.raises(ImportError, match=r'^a plot needs matplotlib: .*"fastlstm\[plot\]"'):
            draw()
    assert shown.html
