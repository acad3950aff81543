"""`fastlstm demo`: learn a text for a minute, write in its style, and report in a page."""

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import fastlstm as fl
from fastlstm.commands import CommandError, compressors, corpus, report, step_times
from fastlstm.commands.character_model import CharacterModel, frequent_bytes, printable
from fastlstm.commands.character_training import LossCurve, text_read, train
from fastlstm.commands.compressors import Compression
from fastlstm.commands.corpus import Corpus
from fastlstm.commands.loss_curve import save_loss_curve
from fastlstm.commands.report.gradients import Beginning

EMBEDDING_SIZE = 64
SAMPLE_SIZE = 400
TEMPERATURE = 0.7
OTHER_TEMPERATURES = 0.5, 1.0  # of the report


def run(text: Path | None, seconds: float, output: Path, hidden_size: int, seed: int) -> None:
    """Train, report, save.

    Parameters
    ----------
    text : Path or None
        The text to learn; None for the source of Python's standard library.
    seconds : float
        Time to train.
    output : Path
        Directory for the model, the loss curve and the report.
    hidden_size : int
        Units of the LSTM.
    seed : int
        Seed of the initial parameters and of the sampling.

    Raises
    ------
    CommandError
        tqdm is missing, the text cannot be used, or `output` cannot be written.
    """
    tqdm = _tqdm()
    data = corpus.standard_library() if text is None else corpus.from_file(text)
    _make_directory(output)
    model = CharacterModel(frequent_bytes(data.training), EMBEDDING_SIZE, hidden_size, rng=seed)
    _print_task(data, model)

    beginning = Beginning()
    curve, elapsed, characters = train(model, data.training, seconds, tqdm, beginning)
    model.save(output / "model.npz")
    print(
        f"Learned from {characters / 1e6:.2f} MB in {elapsed:.1f} s"
        f"{'' if elapsed >= seconds else ' (interrupted)'}: "
        f"{characters / elapsed:,.0f} characters/s.",
        flush=True,
    )

    held_out = model.bits_per_character(data.training, data.held_out)
    rivals = compressors.compare(text_read(data.training, characters), data.held_out)
    _print_comparison(held_out, rivals)
    samples = _write_samples(model, seed)
    step_seconds = _time_steps(output / "model.npz")
    _save_loss_curve(output / "loss.png", curve, held_out, rivals)
    print(f"Model: {output / 'model.npz'}", flush=True)
    done = report.Demo(
        data=data,
        model=model,
        seed=seed,
        curve=curve,
        beginning=beginning,
        seconds=elapsed,
        characters=characters,
        held_out=held_out,
        rivals=rivals,
        samples=samples,
        step_seconds=step_seconds,
    )
    report.write(output / "report.html", done)
    print(f"Report, to open in a browser: {output / 'report.html'}")


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        if error.name != "tqdm":
            raise
        raise CommandError('the demo needs tqdm: pip install "fastlstm[demo]"') from None
    return tqdm


def _make_directory(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--output: cannot make {output}: {error.strerror}") from None
    if not os.access(output, os.W_OK):
        raise CommandError(f"--output: cannot write to {output}")


def _print_task(data: Corpus, model: CharacterModel) -> None:
    print(f"Text: {data.description}; {len(data.training) / 1e6:.2f} MB and ", end="")
    print(f"{len(data.held_out) / 1e3:.0f} KB. A character is a byte.")
    print(f"Model: {model}: {model.layers.num_parameters():,} parameters.", flush=True)


def _print_comparison(held_out: float, rivals: list[Compression]) -> None:
    print("\nBits per character of the held-out text")
    print(f"{'':16}{'cold':>6}{'primed':>9}   primed with the text that the model learned from")
    print(f"  {'this model':<14}{'':>6}{held_out:>9.2f}")
    ahead = []
    for rival in rivals:
        primed = "-" if rival.primed is None else f"{rival.primed:.2f}"
        print(f"  {rival.name:<14}{rival.cold:>6.2f}{primed:>9}   {rival.how}")
        if rival.best < held_out:
            ahead.append(rival.name)
    if ahead:
        print(f"Ahead of the model: {', '.join(ahead)}. They quote phrases; it is no contest won.")


def _write_samples(model: CharacterModel, seed: int) -> dict[float, str]:
    """Print what the model writes, and return it by temperature, with that at others."""
    start = time.perf_counter()
    written = model.write(b"\n", SAMPLE_SIZE, TEMPERATURE, rng=seed)
    microseconds = (time.perf_counter() - start) / SAMPLE_SIZE * 1e6
    print(f"\n{SAMPLE_SIZE} characters that it writes (temperature {TEMPERATURE}, ", end="")
    print(f"{microseconds:.0f} µs each):\n")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    samples = {TEMPERATURE: written}
    for temperature in OTHER_TEMPERATURES:
        samples[temperature] = model.write(b"\n", SAMPLE_SIZE, temperature, rng=seed)
    texts = {t: printable(samples[t].decode(errors="replace")) for t in sorted(samples)}
    print(texts[TEMPERATURE])
    return texts


def _time_steps(model: Path) -> dict[str, float] | None:
    """Print the seconds of a step of training by backend, and return them."""
    backend = fl.backend()
    print(f"\nBackend: {backend}, threads: {fl.get_num_threads()}.", end=" ")
    if backend == "reference":
        print("It is the slow one, which any compiled build beats.")
        return None
    times = step_times.measure(model)
    ours, reference = times[backend], times["reference"]
    print(
        f"On one thread, a step of training takes {ours * 1e3:.1f} ms, and {reference * 1e3:.1f} "
        f"ms in the NumPy reference: {reference / ours:.1f} times as long."
    )
    return times


def _save_loss_curve(
    path: Path, curve: LossCurve, held_out: float, rivals: list[Compression]
) -> None:
    try:
        save_loss_curve(path, curve, held_out, rivals)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        print('No loss curve: it needs matplotlib: pip install "fastlstm[plot]"')
    else:
        print(f"Loss curve: {path}")
