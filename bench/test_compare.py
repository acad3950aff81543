"""`python -m bench.compare` on tiny cases, with each peer that is installed."""

import json

import pytest

from bench.cases import FEWER_STEPS, MANY_STEPS, MODES, TINY, Case
from bench.conftest import run_module
from bench.limits import usable_cores
from bench.peers import PEERS
from bench.peers.onnx_model import onnx_inputs, onnx_model
from bench.picture import draw
from bench.problem import make_problem
from bench.report import add_row, closing, line, load, new_report
from bench.turns import protocol


def compare(*arguments, **variables):
    return run_module("compare", *arguments, **variables)


@pytest.mark.parametrize("peer", PEERS)
def test_every_tiny_case(peer, tmp_path):
    file = tmp_path / "report.json"
    modes = "--modes", ",".join(MODES)
    short = "--cold", "--seconds", 0.01
    compare("--cases", "tiny", *modes, "--peers", peer, *short, "--json", file)
    report = json.loads(file.read_text(encoding="utf-8"))
    if peer in report["missing"]:
        pytest.skip(report["missing"][peer])
    assert len(report["rows"]) == len(MODES) * len(TINY)
    compared = [row for row in report["rows"] if peer in row["medians"]]
    assert compared
    assert all(seconds > 0 for row in compared for seconds in row["medians"].values())
    assert {row["mode"] for row in compared} == {
        mode for mode in MODES if PEERS[peer].trains or mode != "training"
    }
    assert {row["case"]["cell"] for row in compared} == set(PEERS[peer].cells)
    assert not any(row["case"]["variant"] for row in compared)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_again_from_the_report(suffix, tmp_path):
    pytest.importorskip("matplotlib")
    file, first, second = (tmp_path / name for name in ("a.json", f"b.{suffix}", f"c.{suffix}"))
    only = "--cases", "tiny", "--only", "3, 2, 4, 5", "--peers", "onnxruntime,torch"
    compare(*only, "--seconds", 0.01, "--json", file)
    if not json.loads(file.read_text(encoding="utf-8"))["summary"]:
        pytest.skip("no peer is installed")
    for picture in (first, second):
        compare("--from-json", file, "--picture", picture)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 1000


def test_the_title_of_a_picture_is_not_cut(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda f, *a, **k: (figures.append(f), savefig(f, *a, **k))
    )
    row = {"label": "100, 8, 64, 128; 2 layers; both directions", "mode": "inference"}
    report = {
        "rows": [row | {"medians": dict.fromkeys(["fastlstm", *PEERS], 1.0)}],
        "threads": 2,
        "machine": {"processor": "Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz"},
        "protocol": {"name": "hot"},
    }
    draw(report, tmp_path / "picture.png")
    (figure,) = figures
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
    assert title.y1 <= figure.bbox.y1


def test_fastlstm_in_other_ways_is_no_peer(tmp_path):
    file = tmp_path / "report.json"
    text = compare("--cases", "tiny", "--peers", "", "--seconds", 0.01, "--json", file)
    report = json.loads(file.read_text(encoding="utf-8"))
    assert not report["summary"]
    for row in report["rows"]:
        expected = [f"T = {T}" for T in FEWER_STEPS if row["case"]["T"] == MANY_STEPS]
        expected += ["no resets"] * (row["case"]["resets"] > 0)
        expected += ["plain"] * bool(row["case"]["variant"])
        assert list(row["beside"]) == expected
        assert set(row["medians"]) == {"fastlstm"}
    assert "training, no resets / fastlstm" in text
    assert "longest / shortest time a step" in text
    assert "training, zoneout 0.1 / plain LSTM" in text


def test_variants_in_units_of_the_plain_lstm():
    report = new_report(1, 1.0, {}, {}, {}, protocol(cold=False))
    for T, seconds in ((2, 3.0), (4, 5.0)):
        case = Case("", T, 1, 1, 1, variant="layer norm")
        row = add_row(report, case, "training", {"fastlstm": seconds}, {}, {"plain": 1.0}, None)
    assert line(row, ["fastlstm"]).endswith("   1.25 times the plain LSTM; wanted: at most 1.50")
    assert closing(report) == (
        "training, layer norm / plain LSTM: geometric mean 1.37, "
        "most 1.50 (2, 1, 1, 1; layer norm), 2 cases; wanted: at most 1.50"
    )


@pytest.mark.parametrize("name", ["hot", "cold"])
def test_the_report_says_how_turns_go(name, tmp_path):
    file = tmp_path / "report.json"
    only = "--cases", "tiny", "--only", "3, 2, 4, 5", "--peers", "", "--seconds", 0.01
    text = compare(*only, *["--cold"] * (name == "cold"), "--json", file)
    how = protocol(cold=name == "cold")
    assert json.loads(file.read_text(encoding="utf-8"))["protocol"] == how._asdict()
    assert f"{name.capitalize()} turns of at least " in text


@pytest.mark.parametrize(
    ("with_state", "inputs"), [(False, ["x"]), (True, ["x", "h0_0", "c0_0", "h0_1", "c0_1"])]
)
def test_the_model_has_inputs_for_a_state_that_is_given(with_state, inputs):
    onnx = pytest.importorskip("onnx")
    problem = make_problem(Case("", 3, 2, 4, 5, layers=2), with_state=with_state)
    graph = onnx.load_from_string(onnx_model(problem)).graph
    assert [value.name for value in graph.input] == inputs
    assert list(onnx_inputs(problem)) == inputs


def test_reports_without_a_protocol(tmp_path):
    file = tmp_path / "report.json"
    rows = [{"mode": "inference"}, {"mode": "training"}]
    file.write_text(json.dumps({"threads": 1, "rows": rows}), encoding="utf-8")
    report = load(file)
    assert report["protocol"] == protocol(cold=True)._asdict()
    assert [row["mode"] for row in report["rows"]] == ["inference-state", "training"]


def test_two_threads_are_timed_beside_one(tmp_path):
    if len(usable_cores()) < 2:
        pytest.skip("needs two cores")
    file = tmp_path / "report.json"
    only = "--cases", "tiny", "--only", "3, 2, 4, 5", "--modes", "inference"
    compare(*only, "--threads", 2, "--peers", "", "--seconds", 0.01, "--json", file)
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert row["beside"]["one thread"] > 0
    assert row["bound"] is None  # the limits are those of one core


def test_without_a_compiler_the_limits_are_left_out(tmp_path):
    file = tmp_path / "report.json"
    only = "--cases", "tiny", "--only", "3, 2, 4, 5", "--peers", "", "--seconds", 0.01
    assert "limits: not measured: " in compare(*only, "--json", file, CC="no-such-compiler")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert list(report["limits"]) == ["missing"]
    assert [row["bound"] for row in report["rows"]] == [None, None]
