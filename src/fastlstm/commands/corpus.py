"""The text that the demo learns, and the part of it that is held out."""

import platform
import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from fastlstm.commands import CommandError

HELD_OUT_SIZE = 100_000
HELD_OUT_EVERY = 40  # files of the standard library: one in 40 is held out
SMALLEST_TEXT = 4_000
NOT_WRITTEN_BY_HAND = {"encodings", "pydoc_data"}  # tables made by a program
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Corpus:
    """A text in two parts, as bytes, so that any encoding is possible.

    Attributes
    ----------
    description : str
        The source of the text, and how it was divided.
    training : bytes
    held_out : bytes
        The part that is not used in training.
    """

    description: str
    training: bytes
    held_out: bytes


def standard_library() -> Corpus:
    """Return the source of this Python's standard library; every 40th file, up to 100 KB, held out.

    Tests, installed packages and tables made by a program are left out. The files are in a random
    order, which is always the same, so that all parts of the text are of one kind.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_bytes() for path in _source_files(root)]
    training: list[bytes] = []
    held_out: list[bytes] = []
    held_out_size = 0
    for number, text in enumerate(texts):
        if number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2 and held_out_size < HELD_OUT_SIZE:
            held_out.append(text)
            held_out_size += len(text)
        else:
            training.append(text)
    random.Random(0).shuffle(training)
    corpus = Corpus(
        description=(
            f"source of Python {platform.python_version()}'s standard library: {len(training)} "
            f"files to learn from, {len(held_out)} others held out"
        ),
        training=b"".join(training),
        held_out=b"".join(held_out)[:HELD_OUT_SIZE],
    )
    if not corpus.held_out:
        raise CommandError(f"no Python source found in {root}; give a text with --text PATH")
    return corpus


def from_file(path: Path) -> Corpus:
    """Return the text in `path`; its last tenth, at most 100 KB, is held out.

    Raises
    ------
    CommandError
        The file cannot be read, is empty, too short, or binary.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CommandError(f"--text: cannot read {path}: {error.strerror}") from None
    if not text:
        raise CommandError(f"--text: {path} is empty")
    if b"\0" in text:
        raise CommandError(f"--text: {path} is binary (it holds NUL bytes), expected a text")
    if len(text) < SMALLEST_TEXT:
        raise CommandError(
            f"--text: {path} is too short: expected {SMALLEST_TEXT} bytes or more, got {len(text)}"
        )
    held_out_size = min(len(text) // 10, HELD_OUT_SIZE)
    return Corpus(
        description=f"{path}, the end of it held out",
        training=text[:-held_out_size],
        held_out=text[-held_out_size:],
    )


def _source_files(root: Path) -> list[Path]:
    left_out = NOT_THE_LIBRARY | NOT_WRITTEN_BY_HAND
    return sorted(
        path
        for path in root.rglob("*.py")
        if left_out.isdisjoint(path.relative_to(root).parts[:-1]) and path.stat().st_size > 0
    )
