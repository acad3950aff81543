"""Pictures: the numbers that they draw are read back from their lines and images."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from fastlstm.inspection import pictures

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

T, B, H = 9, 3, 5
LENGTHS = np.array([9, 6, 0])
PANELS = {
    "LSTM": ["cell", "hidden", "forget_gate", "input_gate", "candidate", "output_gate"],
    "GRU": ["hidden", "reset_gate", "update_gate", "candidate"],
    "RNN": ["hidden"],
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def made(rng, kind="LSTM", features=2, lengths=None, **others):
    """A trace of two layers with arrays drawn at random; units differ in activity."""

    def array(name):
        values = rng.uniform(size=(T, B, H)) if "gate" in name else rng.normal(size=(T, B, H))
        return values * rng.permutation(np.arange(1, H + 1)) / H

    layers = [
        SimpleNamespace(
            kind=kind, name=name, arrays={n: array(n) for n in reversed(PANELS[kind])} | others
        )
        for name in ("l0", "l1")
    ]
    return SimpleNamespace(
        layers=tuple(layers), x=rng.normal(size=(T, B, features)), lengths=lengths, mask=None
    )


def drawn(panel):
    """What a heat map shows, (units, T), NaN where it is empty."""
    return np.ma.filled(panel.images[0].get_array().astype(float), np.nan)


def names(axes):
    return [panel.get_label() for panel in axes]


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("unit", [None, 3])
def test_panels_are_those_of_the_layer(rng, kind, unit):
    axes = pictures.trace(made(rng, kind), unit=unit)
    assert names(axes) == ["input", *PANELS[kind]]
    assert len({panel.figure for panel in axes}) == 1
    assert len({panel.get_xlim() for panel in axes}) == 1
    axes[0].set_xlim(1, 2)
    assert axes[-1].get_xlim() == (1, 2)  # one axis of time
    axes[0].figure.canvas.draw()


def test_titles_have_the_fields_names_and_the_plain_words(rng):
    axes = pictures.trace(made(rng))
    titles = {panel.get_label(): panel.get_title(loc="left") for panel in axes}
    assert titles["forget_gate"] == "forget gate (remember)"
    assert titles["input_gate"] == "input gate (save)"
    assert titles["output_gate"] == "output gate (focus)"
    assert titles["cell"] == "cell state"


@pytest.mark.parametrize("kind", PANELS)
def test_heat_maps_show_all_units_the_most_active_first(rng, kind):
    trace = made(rng, kind, lengths=LENGTHS)
    arrays = trace.layers[0].arrays
    main = arrays["cell" if kind == "LSTM" else "hidden"][:6, 1]
    order = sorted(range(H), key=lambda unit: -main[:, unit].std())
    assert order != list(range(H))
    for panel in pictures.trace(trace, layer=0, row=1)[1:]:
        values = arrays[panel.get_label()][:, 1].T[order]
        np.testing.assert_array_equal(drawn(panel)[:, :6], values[:, :6])
        assert np.isnan(drawn(panel)[:, 6:]).all()  # after the row's end
        assert drawn(panel).shape == (H, T)


def test_order_is_given(rng):
    trace = made(rng)
    panel = pictures.trace(trace, order=[4, 0, 2])[1]
    np.testing.assert_array_equal(drawn(panel), trace.layers[-1].arrays["cell"][:, 0].T[[4, 0, 2]])
    panel.figure.canvas.draw()
    labels = {tick.get_position()[1]: tick.get_text() for tick in panel.get_yticklabels()}
    assert (labels[0], labels[2]) == ("4", "2")


@pytest.mark.parametrize("kind", PANELS)
def test_lines_of_a_unit_over_the_others(rng, kind):
    trace = made(rng, kind, lengths=LENGTHS)
    axes = pictures.trace(trace, layer=-1, row=1, unit=-2)
    for panel in axes[1:]:
        values = trace.layers[1].arrays[panel.get_label()][:6, 1]
        *others, own = sorted(panel.lines, key=lambda line: line.get_zorder())
        np.testing.assert_array_equal(own.get_ydata()[:6], values[:, 3])
        assert np.isnan(own.get_ydata()[6:]).all()
        assert len(others) == (H - 1 if panel.get_label() in ("cell", "hidden") else 0)
        for line, unit in zip(others, [0, 1, 2, 4], strict=False):
            np.testing.assert_array_equal(line.get_ydata()[:6], values[:, unit])
            assert line.get_color() == pictures.GREY
            assert line.get_linewidth() < own.get_linewidth()


@pytest.mark.parametrize("features", [1, 4, 5])
def test_input_as_lines_or_heat_map(rng, features):
    trace = made(rng, features=features)
    panel = pictures.trace(trace, row=1, unit=0)[0]
    values = trace.x[:, 1].T
    if features > 4:
        np.testing.assert_array_equal(drawn(panel), values)
    else:
        np.testing.assert_array_equal([line.get_ydata() for line in panel.lines], values)
        assert len({line.get_linestyle() for line in panel.lines}) == features


def test_a_projection_has_units_of_its_own(rng):
    hidden = rng.normal(size=(T, B, 2)) * [1, 2]
    trace = made(rng, hidden=hidden)
    np.testing.assert_array_equal(drawn(pictures.trace(trace)[2]), hidden[:, 0].T[[1, 0]])
    assert [line.get_color() for line in pictures.trace(trace, unit=1)[2].lines] == ["#bbbbbb"] * 2


def test_a_row_without_steps(rng):
    for unit in (None, 1):
        axes = pictures.trace(made(rng, features=6, lengths=LENGTHS), row=2, unit=unit)
        axes[0].figure.canvas.draw()
    assert all(np.isnan(line.get_ydata()).all() for panel in axes for line in panel.lines)


def test_scales(rng):
    trace = made(rng, features=6)
    trace.layers[1].arrays["forget_gate"][2, 0, 3] = 1.5  # another activation
    panels = {panel.get_label(): panel for panel in pictures.trace(trace)}
    assert panels["input_gate"].images[0].get_clim() == (0, 1)
    assert panels["forget_gate"].images[0].get_clim() == (0, 1.5)
    largest = abs(trace.layers[1].arrays["cell"][:, 0]).max()
    assert panels["cell"].images[0].get_clim() == (-largest, largest)
    assert abs(panels["input"].images[0].get_clim()[0]) == abs(trace.x[:, 0]).max()
    trace.x[:] = abs(trace.x)
    assert pictures.trace(trace)[0].images[0].get_clim() == (0, trace.x[:, 0].max())


@pytest.mark.parametrize("name", ["cell", "input_gate"])
def test_colors_read_in_gray(rng, name):
    panels = {panel.get_label(): panel for panel in pictures.trace(made(rng))}
    colors = panels[name].images[0].get_cmap()(np.linspace(0, 1, 64))[:, :3]
    gray = colors @ [0.299, 0.587, 0.114]
    assert (np.diff(gray) > 0).all()
    assert np.ptp(gray) > 0.6


def test_an_array_of_axes(rng):
    _, axes = plt.subplots(7, 1)
    assert list(pictures.trace(made(rng), ax=axes)) == list(axes)
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match=r"ax: expected 7 Axes, or one for all, got 6"):
        pictures.trace(made(rng), ax=axes[1:])


def test_one_axes_gives_its_place(rng):
    figure, (left, right) = plt.subplots(1, 2, figsize=(16, 6), layout="constrained")
    axes = pictures.trace(made(rng), ax=right)
    figure.canvas.draw()
    assert {panel.figure for panel in axes} == {figure}
    assert min(panel.get_position().x0 for panel in axes) > left.get_position().x1
    assert not right.axison
    with pytest.raises(ValueError, match=r"ax: expected Axes of a grid"):
        pictures.trace(made(rng), ax=figure.add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": 2}, ValueError, r"layer: expected -2 to 1, got 2"),
        ({"row": 3}, ValueError, r"row: expected -3 to 2, got 3"),
        ({"unit": -6}, ValueError, r"unit: expected -5 to 4, got -6"),
        ({"unit": 1.0}, TypeError, r"unit: expected a whole number, got 1.0"),
        ({"order": "size"}, ValueError, r'order: expected "activity" or an array .*size'),
        ({"order": [0, 5]}, ValueError, r"order: expected units from 0 to 4, got 5"),
        ({"order": [-1]}, ValueError, r"order: expected units from 0 to 4, got -1"),
        ({"order": []}, ValueError, r"order: expected units in one dimension, got shape \(0,\)"),
        ({"order": [0.5]}, TypeError, r"order: expected integers"),
    ],
)
def test_errors_name_the_argument(rng, options, error, message):
    with pytest.raises(error, match=message):
        pictures.trace(made(rng), **options)
    assert not plt.get_fignums()


def gradients(cell=True):
    back = np.arange(12.0)[::-1]
    hidden = 3 * 0.1**back
    return SimpleNamespace(
        hidden=hidden,
        cell=2 * 0.8**back if cell else None,
        carousel=0.9**back if cell else None,
    )


def test_flow_of_one_model():
    flow = gradients()
    flow.hidden[:4] = [0, np.inf, 0, np.nan]
    axes = pictures.flow(flow)
    assert axes.get_yscale() == "log"
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["∂L/∂h", "∂L/∂c", "carousel"]
    shown = lines["∂L/∂h"].get_ydata()
    assert np.isnan(shown[:4]).all()  # gaps
    np.testing.assert_array_equal(shown[4:], flow.hidden[4:])
    np.testing.assert_array_equal(lines["∂L/∂c"].get_ydata(), flow.cell)
    np.testing.assert_array_equal(lines["carousel"].get_ydata(), flow.carousel)
    assert lines["carousel"].get_linewidth() < lines["∂L/∂c"].get_linewidth()
    starts = {text.get_text(): text.xy[0] for text in axes.texts}
    assert starts == {"∂L/∂h": 4, "∂L/∂c": 0, "carousel": 0}


def test_flows_side_by_side():
    axes = plt.subplots()[1]
    flows = {"RNN": gradients(cell=False), "LSTM": gradients(), "GRU": gradients(cell=False)}
    assert pictures.flows(SimpleNamespace(flows=flows), ax=axes) is axes
    thick = [line for line in axes.lines if "carousel" not in line.get_label()]
    labels = ["RNN ∂L/∂h", "LSTM ∂L/∂h", "LSTM ∂L/∂c", "GRU ∂L/∂h"]
    assert [line.get_label() for line in thick] == labels
    assert len({line.get_linestyle() for line in thick}) == 4
    assert thick[1].get_color() == thick[2].get_color() != thick[0].get_color()
    np.testing.assert_array_equal(thick[0].get_ydata(), flows["RNN"].hidden)


def test_masked_steps_are_blank(rng):
    trace = made(rng)
    trace.mask = rng.random((T, B)) < 0.5
    for panel in pictures.trace(trace, row=1)[1:]:
        assert (np.isnan(drawn(panel)) == ~trace.mask[:, 1]).all()
    for panel in pictures.trace(trace, row=1, unit=2):
        for line in panel.lines:
            assert (np.isnan(line.get_ydata()) == ~trace.mask[:, 1]).all()


@pytest.mark.parametrize("unit", [None, 1])
def test_one_step_is_seen(rng, unit):
    """As a point, since a line needs two; and steps are whole numbers."""
    trace = made(rng)
    trace.x = trace.x[:1]
    for layer in trace.layers:
        layer.arrays.update({name: array[:1] for name, array in layer.arrays.items()})
    axes = pictures.trace(trace, unit=unit)
    axes[0].figure.canvas.draw()
    lines = [line for panel in axes for line in panel.lines]
    assert {line.get_marker() for line in lines} == {"."}
    assert len(lines) >= 2
    assert all(tick == round(tick) for panel in axes for tick in panel.get_xticks())
    assert {line.get_marker() for line in pictures.trace(made(rng), unit=unit)[0].lines} == {"None"}


def test_no_step_is_refused(rng):
    trace = made(rng)
    trace.x = trace.x[:0]
    with pytest.raises(ValueError, match=r"^trace: expected at least one step"):
        pictures.trace(trace)


def test_labels_do_not_overlap():
    same = {name: gradients(cell=False) for name in "abcd"}
    axes = pictures.flows(SimpleNamespace(flows=same))
    axes.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))
    assert all(box.x0 >= axes.get_window_extent().x0 for box in boxes)


def test_a_flow_that_is_all_zero():
    axes = pictures.flow(SimpleNamespace(hidden=np.zeros(4), cell=None, carousel=None))
    axes.figure.canvas.draw()
    assert np.isnan(axes.lines[0].get_ydata()).all()


@pytest.mark.parametrize("missing", ["matplotlib", "matplotlib.pyplot"])
def test_without_matplotlib(rng, monkeypatch, missing):
    monkeypatch.delattr(matplotlib, "pyplot")
    monkeypatch.setitem(sys.modules, missing, None)
    comparison = SimpleNamespace(flows={"LSTM": gradients()})
    for draw in (
        lambda: pictures.trace(made(rng)),
        lambda: pictures.flow(gradients()),
        lambda: pictures.flows(comparison),
    ):
        with pytest.raises(ImportError, match=r'^a plot needs matplotlib: .*"fastlstm\[plot\]"'):
            draw()
