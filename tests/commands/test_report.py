"""The demo's report: its numbers, its text, and the page in a browser."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import chromium, open_page

import fastlstm as fl
from fastlstm.commands import report
from fastlstm.commands.character_model import CharacterModel, frequent_bytes, printable
from fastlstm.commands.character_training import ROWS, STEPS, LossCurve, cut, make_trainer
from fastlstm.commands.compressors import Compression
from fastlstm.commands.corpus import Corpus
from fastlstm.commands.report import charts, gradients, reading

INJECTION = "</script><img src=x onerror='window.pwned=1'><!-- {{data}} &amp;"
UNITS = 24


def make_text(count, seed):
    choice = random.Random(seed).choice
    words = ["call(a, b)", "(", ")", "naïve €", '"it"', "\n", "\n    ", "fox", "\t", INJECTION]
    return " ".join(choice(words) for _ in range(count)).encode()


def make_demo(held_out, hidden=UNITS, updates=12):
    training = make_text(5000, 0)
    model = CharacterModel(frequent_bytes(training), 8, hidden, rng=1)
    beginning = gradients.Beginning(seconds=0)  # ends with the first update
    trainer = make_trainer(model, lambda step: 6e-3 / (1 + step))

    class Stop:
        def on_step_end(self, run):
            return run.step == updates

    trainer.fit(cut(model, training), epochs=9, callbacks=[beginning, Stop()], progress=False)
    curve = LossCurve(12.0)
    for second, bits in ((1.0, 6.5), (4.0, 3.0), (11.0, 2.5)):
        curve.add(second, bits * np.log(2))
    return report.Demo(
        data=Corpus(f"a text, {INJECTION}", training, held_out),
        model=model,
        seed=1,
        curve=curve,
        beginning=beginning,
        seconds=12.0,
        characters=updates * ROWS * STEPS,
        held_out=2.75,
        rivals=[
            Compression("zlib", 3.25, 3.1, ""),
            Compression("bz2", 2.8, None, ""),
            Compression("lzma", 2.6, 2.2, ""),
        ],
        samples={0.7: f"sample {INJECTION}\n\tend", 1.0: "  \n "},
        step_seconds={"avx2": 0.004, "reference": 0.02},
    )


@pytest.fixture(scope="module")
def demo():
    return make_demo(make_text(1500, 5))


@pytest.fixture(scope="module")
def path(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "report.html"
    report.write(path, demo)
    return path


@pytest.fixture(scope="module")
def html(path):
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """The elements of a page, and the text within those of each kind."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], {}
        self._open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "input", "path"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data


def data_of(html):
    return json.loads(Page(html).texts["script"][0])


def arrays_of(data):
    """Gates (4, units, characters), and cells (units, 1 + characters), as the page has them."""
    shape = 4, len(data["units"]), len(data["text"])
    gates = np.frombuffer(base64.b64decode(data["gates"]), np.uint8).reshape(shape) / 255
    cells = np.frombuffer(base64.b64decode(data["cells"]), "<i2").reshape(shape[1], -1)
    return gates, cells * data["scale"]


def by_hand(model, text):
    """The gates and cells of an LSTM after each byte, from its equations."""
    embedding, lstm, _ = model.layers
    w = {name: array.astype(np.float64) for name, array in lstm.state_dict().items()}
    h = c = np.zeros(model.hidden_size)
    gates, cells = [], []
    for symbol in model.encode(text):
        z = w["weight_ih_l0"] @ embedding.weight[symbol] + w["weight_hh_l0"] @ h
        z = np.split(z + w["bias_ih_l0"] + w["bias_hh_l0"], 4)
        i, f, o = (1 / (1 + np.exp(-z[k])) for k in (0, 1, 3))
        g = np.tanh(z[2])
        c = f * c + i * g
        h = o * np.tanh(c)
        gates.append([i, f, g, o])
        cells.append(c)
    return np.array(gates), np.array(cells)


def test_the_gates_are_those_of_the_equations(demo, html):
    data = data_of(html)
    held_out = demo.data.held_out
    shown = data["text"]
    start = held_out.index(b"\n", min(len(held_out), reading.READ) // 2) + 1
    raw = held_out[start : start + reading.SHOWN].decode(errors="ignore")
    assert shown == printable(raw)
    assert "ï" in shown
    assert INJECTION in shown
    ends = np.cumsum([len(character.encode()) for character in raw]) + start - 1
    gates, cells = by_hand(demo.model, held_out[: ends[-1] + 1])
    shown_gates, shown_cells = arrays_of(data)
    shown_gates[2] = 2 * shown_gates[2] - 1
    assert data["units"] == list(range(UNITS))
    np.testing.assert_allclose(shown_gates, gates[ends].transpose(1, 2, 0), rtol=0, atol=1.01 / 255)
    expected = np.concatenate([cells[start - 1 : start], cells[ends]]).T
    np.testing.assert_allclose(shown_cells, expected, rtol=0, atol=1e-4)
    assert [shown[place] for place in data["several"]] == [c for c in raw if ord(c) > 127]


@pytest.mark.parametrize(
    ("held_out", "shown"),
    [
        (b"no line ends here, and it is short " * 11, None),
        ("Grüße\n".encode("latin-1") * 70, "Gr  e\n" * 34),
        (b"x" * 400 + b"\n" + b"y\x1b\0" * 100, "y  " * 100),
    ],
)
def test_texts_of_other_kinds(demo, tmp_path, held_out, shown):
    model = CharacterModel(demo.model.known, 8, 9, rng=0)
    data = reading.read(model, held_out).data
    gates, cells = arrays_of(data)
    assert gates.shape[1:] == (9, len(data["text"]))
    assert cells.shape == (9, len(data["text"]) + 1)
    assert shown is None or data["text"] == shown


def test_many_units_are_the_most_active(demo, monkeypatch):
    monkeypatch.setattr(reading, "MOST_VALUES", 7 * reading.SHOWN)
    data = reading.read(demo.model, demo.data.held_out).data
    _, cells = by_hand(demo.model, demo.data.held_out[: reading.READ])
    memory = np.tanh(arrays_of(data)[1][:, 1:])
    assert data["units"] == sorted(data["units"])
    assert 7 <= len(data["units"]) < UNITS
    found = reading._followers(demo.data.held_out[: reading.READ], np.tanh(cells))
    followers = {follower.unit for follower in found}
    assert followers <= set(data["units"])
    least = min(
        memory[place].std() for place, unit in enumerate(data["units"]) if unit not in followers
    )
    start = demo.data.held_out.index(b"\n", len(cells) // 2) + 1
    others = np.delete(np.tanh(cells), data["units"], axis=1)[start : start + reading.SHOWN]
    assert others.std(axis=0).max() < least + 0.02
    assert data["first"] in data["units"]


def test_what_is_counted():
    text = b'ab (c\n  [d" ]) "e_1'
    counts = {name.split()[-1]: values for name, values in reading._counts(text).items()}
    np.testing.assert_array_equal(counts["is"], [*range(1, 6), 0, *range(1, 14)])
    np.testing.assert_array_equal(counts["indented"], [0] * 6 + [1] + [2] * 12)
    np.testing.assert_array_equal(
        counts["far"], [1, 2, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3]
    )
    brackets = next(v for name, v in reading._counts(text).items() if "brackets" in name)
    np.testing.assert_array_equal(brackets, [0, 0, 0, *[1] * 5, *[2] * 4, 1, *[0] * 6])
    quoted = next(v for name, v in reading._counts(text).items() if "quotation" in name)
    np.testing.assert_array_equal(quoted, [0] * 10 + [1] * 5 + [0] * 4)


def test_a_follower_is_chosen_in_one_half_and_measured_in_the_other(rng):
    text = make_text(300, 3)
    brackets = next(v for name, v in reading._counts(text).items() if "brackets" in name)
    memory = 0.3 * rng.standard_normal((len(text), 6))
    half = len(text) // 2
    memory[:, 4] -= brackets
    memory[:half, 2] = 1e-3 * brackets[:half]  # better, but in the first half alone
    assert not [f for f in reading._followers(text, memory) if f.unit == 2]
    memory[:half, 2] = 0
    (found,) = (f for f in reading._followers(text, memory) if "brackets" in f.what)
    assert found.unit == 4
    expected = np.corrcoef(memory[half:, 4], brackets[half:])[0, 1]
    assert found.correlation == pytest.approx(expected)
    assert expected < -0.9


def test_half_lives():
    lives = np.array([0.2, 0.9, 3.0, 3.5, 100.0, np.inf])
    counts = dict(reading.half_lives(lives / np.log(2)))
    assert counts == {
        "0 to 1": 2,
        "1 to 2": 0,
        "2 to 4": 2,
        "4 to 8": 0,
        "8 to 16": 0,
        "16 to 32": 0,
        "32 and more": 2,
    }


def test_the_fall_of_a_plain_rnn_by_hand(demo):
    rnn = gradients.like(demo.model, 3, fl.RNN)
    x, target = gradients.pieces(rnn, demo.data.held_out)
    assert x.shape == (gradients.BACK + 1, gradients.PIECES)
    embedding, layer, linear = rnn.layers
    w = {name: array.astype(np.float64) for name, array in layer.state_dict().items()}
    h, states = np.zeros((x.shape[1], UNITS)), []
    for step in x:
        z = embedding.weight[step] @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T
        h = np.tanh(z + w["bias_ih_l0"] + w["bias_hh_l0"])
        states.append(h)
    odds = np.exp(h @ linear.weight.T + linear.bias)
    odds /= odds.sum(axis=1, keepdims=True)
    odds[np.arange(len(odds)), target[-1]] -= 1
    gradient = odds @ linear.weight
    norms = [np.linalg.norm(gradient)]
    for h in states[:0:-1]:
        gradient = gradient * (1 - h**2) @ w["weight_hh_l0"]
        norms.append(np.linalg.norm(gradient))
    known = np.array(norms) / norms[0] > 1e-25
    fall = gradients._fall(rnn, x, target)
    np.testing.assert_allclose(fall[known], (np.array(norms) / norms[0])[known], rtol=1e-3)


def test_the_rnn_learns_as_the_lstm_did(demo):
    """An LSTM in the RNN's place learns to the same bits."""
    beginning = demo.beginning
    assert len(beginning.rates) == 1
    again = gradients.like(demo.model, demo.seed, fl.LSTM)
    assert gradients.learn(again, demo.data.training, beginning.rates) == 1
    for name, array in again.layers.state_dict().items():
        np.testing.assert_array_equal(array, beginning.parameters[name])
    again = gradients.like(demo.model, demo.seed, fl.LSTM)
    rates = [6e-3 / (1 + step) for step in range(12)]
    assert gradients.learn(again, demo.data.training, rates) == 12
    for name, array in again.layers.state_dict().items():
        np.testing.assert_array_equal(array, demo.model.layers.state_dict()[name])


def test_what_is_compared(demo):
    falls = gradients.compare(demo.model, 12, demo.beginning, demo.data, demo.seed)
    assert [(fall.name, fall.updates) for fall in falls] == [("LSTM", 12), ("LSTM", 1), ("RNN", 1)]
    assert all(fall.norms[0] == 1 for fall in falls)
    beginning = gradients.Beginning()
    beginning.rates = [1e-3, 1e-3]  # the fit ended before the time
    falls = gradients.compare(demo.model, 2, beginning, demo.data, demo.seed)
    assert [(fall.name, fall.updates) for fall in falls] == [("LSTM", 2), ("RNN", 2)]


def test_an_interrupt_ends_the_report(demo, monkeypatch):
    class Interrupted(fl.Trainer):
        def fit(self, *args, **options):
            history = super().fit(*args, **options)
            history.stopped_by = "interrupt"
            return history

    monkeypatch.setattr(fl, "Trainer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        gradients.compare(demo.model, 12, demo.beginning, demo.data, demo.seed)


def test_the_page_is_alone(html):
    assert len(html.encode()) < 2_000_000
    outside = re.sub(
        r"<pre.*?</pre>|<script type.*?</script>|<p class=.soft.>Text:.*?</p>",
        "",
        html,
        flags=re.DOTALL,
    )
    assert not re.search(r"https?:|//[a-z]|src=|href=|@import|url\(", outside)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_the_largest_page_is_small(demo):
    wide = CharacterModel(demo.model.known, 8, 900, rng=0)
    data = reading.read(wide, demo.data.held_out[:1500]).data
    assert len(json.dumps(data)) < 1_700_000


def test_texts_are_escaped(demo, html):
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "iframe", "link", "a"})
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert demo.samples[0.7] in page.texts["pre"]
    assert any(demo.data.description in text for text in page.texts["p"])
    assert "white space, this time" in html


def test_what_the_page_says(demo, html):
    page = Page(html)
    text = " ".join(page.texts["main"][0].split())
    for part in (
        "12,288",  # characters read
        "1,024",  # a second
        "2.75",
        "zlib, primed, 3.10",
        "bz2, 2.80",
        "lzma, primed, 2.20",
        "lzma needs fewer",
        "5.0 times as long",
        "4.0 ms",
        "LSTM after 12 updates",
        "RNN after 1 updates",
        f"fastlstm {fl.__version__}",
        f"numpy {np.__version__}",
    ):
        assert part in text, part
    assert "{{" not in re.sub(re.escape("{{data}}"), "", html)


def test_every_picture_and_control_has_a_name(html):
    page = Page(html)
    pictures = [a for tag, a in page.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(pictures) == 3
    assert all(a["role"] == "img" and "aria-label" in a for a in pictures)
    headings = {a["id"] for tag, a in page.tags if tag == "h2"}
    sections = {a["aria-labelledby"] for tag, a in page.tags if tag == "section"}
    assert headings == sections


def test_without_compiled_kernels(demo, path):
    alone = report._speed(None)
    assert "reference" in alone["speed"]
    assert alone["speed_bars"] == ""


def test_line_chart():
    lines = [
        charts.Line("a < b", "main", [0, 5, 10], [1, np.nan, 3]),
        charts.Line("level", "level0", None, [2]),
        charts.Line("dot", "main", [10], [4]),
    ]
    chart = charts.line_chart("a & b", lines, charts.Axis("x", 0, 10), charts.Axis("y", 0, 4))
    assert 'd="M0.00 75.00M100.00 25.00"' in chart
    assert 'class="level0" d="M0 50.00H100"' in chart
    assert 'd="M100.00 0.00h0"' in chart
    assert "a &lt; b" in chart
    assert 'aria-label="a &amp; b"' in chart


def test_axes():
    assert charts.Axis("", 0, 60).ticks() == pytest.approx(
        {"0": 0, "20": 100 / 3, "40": 200 / 3, "60": 100}
    )
    assert charts.Axis("", 0, 0.3).ticks() == pytest.approx(
        {"0.0": 0, "0.1": 100 / 3, "0.2": 200 / 3, "0.3": 100}
    )
    axis = charts.Axis("", -16, 0, is_log=True)
    assert axis.ticks() == {"10⁻¹⁵": 6.25, "10⁻¹⁰": 37.5, "10⁻⁵": 68.75, "1": 100}
    np.testing.assert_array_equal(axis.places([1, 1e-16, 0, np.inf]), [100, 0, np.nan, np.nan])


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


DESKTOP, PHONE = {"width": 1100, "height": 900}, {"width": 390, "height": 844}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_the_screen_and_the_colors(browser, path, viewport, scheme):
    with open_page(browser, path, viewport=viewport, color_scheme=scheme) as (page, complaints):
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        assert lightness(page, "body", "background-color") > 200 or scheme == "dark"
        assert lightness(page, "body", "background-color") < 50 or scheme == "light"
        for selector in ("h1", "section p", "section .soft", ".axis", ".plot span", ".bars th"):
            behind = "section" if page.locator(f"section {selector}").count() else "body"
            assert contrast(page, selector, behind) > 4.5, selector
        paper = rgb(page, "section", "background-color")
        assert min(contrasts_on_colors(page, "#text span", paper)) > 4.5
        small = page.evaluate(
            "[...document.querySelectorAll('p,dd,dt,span,th,td,li,label,button,figure')]"
            ".filter(e => e.innerText?.trim() && parseFloat(getComputedStyle(e).fontSize) < 11)"
            ".map(e => e.outerHTML)"
        )
        assert small == []
        assert complaints == []


def rgb(page, selector, name):
    read = "(e, name) => getComputedStyle(e).getPropertyValue(name)"
    color = page.locator(selector).first.evaluate(read, name)
    return np.array([float(number) for number in re.findall(r"[\d.]+", color)[:3]])


def lightness(page, selector, name):
    return rgb(page, selector, name).mean()


def contrast(page, selector, behind):
    """WCAG's contrast of a text with what is behind it."""
    return contrast_of(rgb(page, selector, "color"), rgb(page, behind, "background-color"))


def contrast_of(one, other):

    def luminance(color):
        share = color / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722] + 0.05

    pair = luminance(one), luminance(other)
    return max(pair) / min(pair)


def contrasts_on_colors(page, selector, paper):
    """The contrast of a character on the strongest color, up and down."""
    character = page.locator(selector).first
    for is_below in ("false", "true"):
        character.evaluate(
            f"e => {{ e.style.setProperty('--v', 1); e.classList.toggle('n', {is_below}) }}"
        )
        color = character.evaluate("e => getComputedStyle(e).backgroundColor")
        *color, alpha = (float(number) for number in re.findall(r"[\d.]+", color))
        behind = alpha * np.array(color) + (1 - alpha) * paper
        yield contrast_of(rgb(page, selector, "color"), behind)


class Gates:
    """The picture of the gates on an open page."""

    def __init__(self, page):
        self.page = page
        self.what = page.get_by_role("combobox", name="Show")
        self.unit = page.get_by_role("spinbutton", name="Unit")
        self.units = page.get_by_role("slider", name="All units")
        self.place = page.get_by_role("slider", name="Character of the text")

    @property
    def picture(self):
        return self.page.locator("#curve").get_attribute("d")

    @property
    def line(self):
        """The heights of the picture's line."""
        return np.array([float(y) for y in re.findall(r"[ML]\d+ ([\d.]+)h1", self.picture)])

    @property
    def colors(self):
        """The strength of each character's color, below 0 where it is underlined."""
        read = "all => all.map(e => [e.classList.contains('n'), e.style.getPropertyValue('--v')])"
        signs, strengths = zip(*self.page.locator("#text span").evaluate_all(read), strict=True)
        return np.where(signs, -1, 1) * np.array(strengths, float)

    def says(self, selector):
        return self.page.locator(selector).inner_text()


def test_the_control_changes_the_picture(browser, path, html):
    data = data_of(html)
    gates, cells = arrays_of(data)
    cells = cells[:, 1:]
    expected = {
        "memory": np.tanh(cells),
        "remember": gates[1],
        "save": gates[0],
        "candidate": 2 * gates[2] - 1,
        "focus": gates[3],
        "output": gates[3] * np.tanh(cells),
    }
    with open_page(browser, path) as (page, complaints):
        shown = Gates(page)
        assert shown.unit.input_value() == str(data["first"])
        assert page.locator("#text").text_content() == data["text"]
        pictures = []
        for unit in (data["first"], 7):
            shown.unit.fill(str(unit))
            shown.unit.press("Enter")
            for name, values in expected.items():
                shown.what.select_option(name)
                pictures.append(shown.picture)
                np.testing.assert_allclose(shown.colors, values[unit], atol=0.00501)
                low = -1 if name in ("memory", "candidate", "output") else 0
                heights = 1 - shown.line / 100 * (1 - low)
                np.testing.assert_allclose(heights, values[unit], atol=0.0011)
                assert f"of unit {unit}" in shown.says("#caption").lower()
                label = page.locator("#line").get_attribute("aria-label")
                assert label.startswith(f"{name} of unit {unit} over {len(data['text'])}")
        assert len(set(pictures)) == len(pictures)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.locator("#needs").is_hidden()
        assert complaints == []


def test_keyboard_and_pointer(browser, path, html):
    data = data_of(html)
    gates, cells = arrays_of(data)
    with open_page(browser, path, viewport=PHONE, has_touch=True) as (page, complaints):
        shown = Gates(page)
        shown.units.focus()
        shown.units.press("Home")
        assert shown.unit.input_value() == "0"
        before = shown.picture
        shown.units.press("ArrowRight")
        assert shown.unit.input_value() == "1"
        assert shown.picture != before
        shown.unit.fill("999")
        shown.unit.press("Tab")
        assert shown.unit.input_value() == str(UNITS - 1)
        shown.units.fill("5")

        shown.place.focus()
        for _ in range(9):
            shown.place.press("ArrowRight")
        i, f, g, o = gates[:, 5, 9]
        g = 2 * g - 1
        numbers = [
            *(10, cells[5, 10], f, cells[5, 9], i, g),
            *(o * np.tanh(cells[5, 10]), o, cells[5, 10], o, np.tanh(cells[5, 10])),
        ]
        told = shown.says("#step").replace("−", "-").partition(":")
        said = re.findall(r"-?\d+\.?\d*", re.sub("“.*”", "", told[0]) + told[2])
        assert 9 not in data["several"]
        np.testing.assert_allclose(np.array(said, float), numbers, atol=0.00501)
        assert abs(f * cells[5, 9] + i * g - cells[5, 10]) < 0.01

        target = next(k for k, c in enumerate(data["text"]) if c.isalpha() and k > 60)
        page.locator("#text span").nth(target).tap()
        assert shown.place.input_value() == str(target)
        assert page.locator("#text .here").inner_text() == data["text"][target]
        assert f"Character {target + 1}, “{data['text'][target]}”" in shown.says("#step")
        marker = page.locator("#marker").get_attribute("d")
        assert marker == f"M{target + 0.5} 0V100"
        buttons = page.get_by_role("group", name="Units worth a look").get_by_role("button")
        for button in buttons.all():
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
            assert shown.unit.input_value() == button.get_attribute("data-unit")
        assert complaints == []


def test_without_javascript(browser, path):
    with open_page(browser, path, java_script_enabled=False) as (page, complaints):
        assert page.get_by_text("This picture needs JavaScript").is_visible()
        assert page.locator("section").count() == 8
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_text_trace_in_the_browser(browser, demo, tmp_path, scheme):
    text = demo.data.held_out[:900].decode(errors="ignore")
    shown = fl.inspection.text_trace(demo.model.layers, text, encode=demo.model.encode)
    shown.to_html(tmp_path / "text.html")
    options = {"viewport": PHONE, "color_scheme": scheme}
    with open_page(browser, tmp_path / "text.html", **options) as (page, complaints):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.locator("i").count() == len(text)
        ink = lightness(page, "pre", "color")
        assert ink > 200 if scheme == "dark" else ink < 50
        paper = np.full(3, 18 if scheme == "dark" else 255)  # Chromium's own
        assert min(contrasts_on_colors(page, "i", paper)) > 4.5
        assert page.evaluate("window.pwned") is None
        assert complaints == []
