"""The command line, from the outside."""

import html
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

import fastlstm as fl
from fastlstm.commands import bench, corpus
from fastlstm.commands.character_model import CharacterModel

ENVIRONMENT = {**os.environ, "FASTLSTM_BACKEND": fl.backend()}


WITHOUT = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
from fastlstm.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def run(*command):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(
        command, capture_output=True, check=False, env=ENVIRONMENT, timeout=60, text=True
    )


def fastlstm(*arguments):
    return run("-m", "fastlstm", *arguments)


def without(module, *arguments):
    """As `fastlstm`, where `module` is not installed."""
    return run("-c", WITHOUT, module, *arguments)


@pytest.fixture
def text(tmp_path):
    """A file of 40 KB with some order in it, and bytes that only its end has."""
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog,", "naïve\n"]
    choice = random.Random(4).choice
    path = tmp_path / "text.txt"
    path.write_text(" ".join(choice(words) for _ in range(8000)) + "ŧŧ ĸ", encoding="utf-8")
    return path


def test_info():
    result = fastlstm("info")
    assert result.returncode == 0
    assert result.stderr == ""
    assert fl.backend() in result.stdout
    assert fl.__version__ in result.stdout


def test_version():
    assert fastlstm("--version").stdout.split() == ["fastlstm", fl.__version__]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "command"),
        (["train"], "train"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["demo", "--seconds", "nan"], "--seconds"),
        (["demo", "--hidden", "0"], "--hidden"),
        (["demo", "--hidden", "1.5"], "--hidden"),
        (["demo", "--hidden", "3000000000"], "--hidden"),
        (["demo", "--threads", "-1"], "--threads"),
        (["demo", "--colour", "red"], "--colour"),
    ],
)
def test_usage_errors(arguments, named):
    result = fastlstm(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"short", "too short"),
        (b"\x00\x01\x02" * 5000, "binary"),
    ],
)
def test_unfit_texts(tmp_path, content, complaint):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    result = fastlstm("demo", "--text", path, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(path) in result.stderr
    assert complaint in result.stderr


def test_text_is_a_directory(tmp_path):
    result = fastlstm("demo", "--text", tmp_path, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


def test_output_is_a_file(text):
    result = fastlstm("demo", "--text", text, "--output", text)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--output" in result.stderr


def test_demo_without_tqdm():
    result = without("tqdm", "demo")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'fastlstm: the demo needs tqdm: pip install "fastlstm[demo]"'
    ]


def test_demo_without_matplotlib(text, tmp_path):
    pytest.importorskip("tqdm")
    output = tmp_path / "out"
    arguments = ["demo", "--text", text, "--seconds", 0.3, "--hidden", 16, "--output", output]
    result = without("matplotlib", *arguments)
    assert result.returncode == 0, result.stderr
    assert 'No loss curve: it needs matplotlib: pip install "fastlstm[plot]"' in result.stdout
    assert {path.name for path in output.iterdir()} == {"model.npz", "report.html"}


def test_demo_learns_and_saves(text, tmp_path):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    output = tmp_path / "out"
    arguments = ["--text", text, "--seconds", 2, "--hidden", 64, "--threads", 1, "--seed", 3]
    result = fastlstm("demo", *arguments, "--output", output)
    assert result.returncode == 0, result.stderr
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    page = (output / "report.html").read_text(encoding="utf-8")
    assert str(output / "report.html") in result.stdout
    for expected in ("zlib", "bz2", "lzma", "characters/s", fl.backend()):
        assert expected in result.stdout

    reported = float(re.search(r"this model +([\d.]+)", result.stdout).group(1))
    data = corpus.from_file(text)
    model = CharacterModel.load(output / "model.npz")
    assert model.hidden_size == 64
    bits = model.bits_per_character(data.training, data.held_out)
    assert bits == pytest.approx(reported, abs=0.0051)
    assert bits < 4  # untrained: 5 and more
    assert f"held-out text, {reported:.2f}" in page
    sample = result.stdout.partition(" each):\n\n")[2].partition("\n\nBackend")[0]
    assert html.escape(sample) in page


class Demo:
    """A demo on its way, to be interrupted."""

    def __init__(self, output, *arguments):
        command = [sys.executable, "-u", "-m", "fastlstm", "demo", "--hidden", "32"]
        self.process = subprocess.Popen(
            [*command, "--seconds", "600", "--output", str(output), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )

    def __enter__(self):
        self.process.stderr.read(1)  # the progress bar: training is about to start
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.communicate()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)


def test_interrupt_ends_training_with_results(text, tmp_path):
    pytest.importorskip("tqdm")
    with Demo(tmp_path / "out", "--text", text) as demo:
        time.sleep(0.5)
        demo.interrupt()
        stdout, stderr = demo.process.communicate(timeout=60)
    assert demo.process.returncode == 0, stderr
    assert "(interrupted)" in stdout
    assert "this model" in stdout
    assert (tmp_path / "out" / "model.npz").exists()


def test_second_interrupt_aborts(tmp_path):
    pytest.importorskip("tqdm")
    with Demo(tmp_path / "out") as demo:
        demo.interrupt()
        while "(interrupted)" not in demo.process.stdout.readline():
            assert demo.process.poll() is None
        demo.interrupt()
        _, stderr = demo.process.communicate(timeout=60)
    assert demo.process.returncode == 130
    assert stderr.splitlines()[-1] == "fastlstm: interrupted"
    assert "Traceback" not in stderr


def test_bench_table(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SHAPES", [(3, 2, 4, 5)])
    monkeypatch.setattr(bench, "SECONDS_PER_ROW", 0.05)
    threads = fl.get_num_threads()
    try:
        assert bench.main() == 0
    finally:
        fl.set_num_threads(threads)
    table = capsys.readouterr().out
    assert table.count("3, 2, 4, 5") == 2
    for name in fl.backends():
        assert name in table
