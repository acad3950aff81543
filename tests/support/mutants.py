"""Damaged copies of files, and what reading one may do."""

import io
import tracemalloc
import zipfile

import numpy as np

import fastlstm as fl

MARGIN = 64 << 20


def mutate(rng, data):
    """Return `data` with a few changes: bits, runs, cuts, copies, large numbers, text of a name."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        # Most of what matters is at the beginning and at the end.
        at = int(min(rng.integers(len(data)), rng.integers(len(data)) if rng.integers(2) else 600))
        at = len(data) - 1 - at if rng.integers(3) == 0 else at
        length = int(rng.integers(1, 12))
        kind = rng.integers(8)
        if kind == 0:
            data[at] ^= 1 << rng.integers(8)
        elif kind == 1:
            data[at] = rng.integers(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            start = int(rng.integers(len(data)))
            data[at:at] = data[start : start + 8 * length]
        elif kind == 5:
            data[at : at + length] = rng.choice([b"\xff", b"\x00", b"\x7f"]) * length
        elif kind == 6:
            data[at:at] = rng.bytes(length)
        else:
            data[at] = rng.choice([*b"()]}.cRbQ2urtX0"])
    return bytes(data)


def mutate_member(rng, data):
    """A zip archive with one mutated member, under a checksum that fits it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    small = [name for name in names if name.endswith("data.pkl")] or names
    name = (small if rng.integers(4) else names)[rng.integers(len(small))]
    members[name] = mutate(rng, members[name])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return written.getvalue()


def read_damaged(path, **hints):
    """Load a file that may be damaged; return the error, which must name it, or None."""
    tracemalloc.start()
    try:
        fl.load(path, **hints)
        error = None
    except (ValueError, TypeError) as raised:
        error = raised
        if not str(raised).startswith(str(path)):
            raise
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= 3 * path.stat().st_size + MARGIN, peak
    return error


def refused(path, message):
    """The file is refused, and the error has `message`."""
    error = read_damaged(path)
    assert error is not None
    text = str(error).removeprefix(str(path))  # which has the name of the test
    assert message in text, text


def recurrent_arrays(rng):
    """The arrays of a small layer with something of everything."""
    layer = fl.LSTM(3, 5, 2, bidirectional=True, proj_size=2, rng=rng)
    named = {f"encoder.lstm.{name}": array for name, array in layer.state_dict().items()}
    return named | {"fc.weight": np.ones((2, 4), np.float32)}
