"""Checkpoints: files from which a fit goes on to the same bits.

A file is named after the step. It has the arrays in the format safetensors, and in its metadata
the rest as JSON with a digest of both, so no byte can change unseen. Nothing in it is run.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from itertools import zip_longest
from typing import Any

import numpy as np

from fastlstm._version import __version__
from fastlstm.checks import brief, read_size, warn_user
from fastlstm.distributed.ranks import Place
from fastlstm.safetensors import read_safetensors, write_safetensors
from fastlstm.training.callbacks import pack, unpack
from fastlstm.training.data.batch import Source
from fastlstm.training.data.sequences import Sequences
from fastlstm.training.lock import locked

KEY, DIGEST = "fastlstm checkpoint", "digest"  # in the metadata
FORMAT = 1
NAME = re.compile(r"step-(\d{12})\.safetensors")
LEFT_OVER = re.compile(r"\.step-\d{12}\.safetensors\.[0-9a-f]+\.tmp")  # of a process that died
KEPT = 2  # newest files, beside the best one
SHOWN = 120  # characters of a setting in an error

Arrays = dict[str, np.ndarray]


class Saver:
    """Writes the checkpoints of one run, and reads them.

    Parameters
    ----------
    folder : str or path
        Made if it is missing.
    every : "epoch" or int
        An int is a number of steps.
    settings : dict of str to str
        What has to be equal for a run to go on, by name.
    """

    def __init__(self, folder: Any, every: Any, settings: Mapping[str, str]):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"checkpoint: expected the path of a folder, got {brief(folder)}")
        self.folder = os.fspath(folder)
        self.every = None if every == "epoch" else read_size("checkpoint_every", every)
        self.settings = dict(settings)
        self._steps: list[int] = []  # of the whole files of this run in the folder
        self._best: int | None = None  # the step at the end of the best epoch

    def after_step(self, run: Any) -> None:
        if self.every is not None and run.step % self.every == 0:
            self.save(run)

    def save(self, run: Any) -> None:
        """Write the state of a run, and remove what is older than the newest two and the best."""
        if run.position == 0 and run.history.best_epoch == run.history.epochs - 1:
            self._best = run.step
        arrays, numbers = _state_of(run)
        if run.ranks.rank:  # rank 0 writes
            return
        numbers |= {"settings": self.settings, "best step": self._best}
        path = self._path(run.step)
        text = json.dumps(numbers)
        metadata = {KEY: text, DIGEST: _digest(arrays, text)}
        try:
            write_safetensors(path, arrays, metadata)
        except OSError as error:
            raise _unwritten(path, error) from error
        self._steps = sorted({*self._steps, run.step})
        kept = {*self._steps[-KEPT:], self._best}
        for step in [step for step in self._steps if step not in kept]:
            with suppress(FileNotFoundError):
                os.unlink(self._path(step))
            self._steps.remove(step)

    def opened(self) -> AbstractContextManager[None]:
        """Make the folder; within the block, no other process trains with it."""
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise _unwritten(self.folder, error) from error
        return locked(self.folder)

    def restore(self, run: Any) -> bool:
        """Set a run to the newest whole checkpoint; return False if there is none.

        Raises
        ------
        ValueError
            There are only checkpoints of other runs.
        """
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise _unwritten(self.folder, error) from error
        for name in filter(LEFT_OVER.fullmatch, names):
            os.unlink(os.path.join(self.folder, name))
        newest, differs, refused = None, "", []
        for name in filter(NAME.fullmatch, names):
            path = os.path.join(self.folder, name)
            try:
                arrays, numbers = _read(path)
                problem = self._difference(numbers["settings"])
                if not problem:
                    newest = arrays, numbers
                    self._steps.append(numbers["step"])
                    continue
                differs = f"{path}: is of another run: {problem}"
            except (ValueError, KeyError, TypeError, OSError) as error:
                problem = str(error)
            refused.append(f"checkpoint: {name} is not used: {problem}")
        if newest is None and differs:
            raise ValueError(f"checkpoint: {differs}; use another folder")
        for text in refused:
            warn_user(text)
        if newest is None:
            return False
        arrays, numbers = newest
        if (numbers["epoch"], numbers["position"]) > (run.epochs, 0):
            raise ValueError(
                f"epochs: expected at least the {numbers['epoch'] - run.first_epoch} of the "
                f"checkpoints in {self.folder}, got {run.epochs - run.first_epoch}"
            )
        self._best = numbers["best step"]
        _set_state(run, arrays, numbers)
        return True

    def _difference(self, settings: Mapping[str, str]) -> str:
        """How the settings of a file differ from these; "" if they do not."""
        texts = []
        for name in {**self.settings, **settings}:
            there, here = settings.get(name, "none"), self.settings.get(name, "none")
            if there != here:
                pairs = enumerate(zip_longest(there, here))
                start = max(0, next(k for k, (a, b) in pairs if a != b) - SHOWN // 2)
                parts = (text[start : start + SHOWN] for text in (there, here))
                texts.append("{} was {}, is {}".format(name, *parts))
        return "; ".join(texts)

    def _path(self, step: int) -> str:
        return os.path.join(self.folder, f"step-{step:012}.safetensors")


def settings_of(run: Any) -> dict[str, str]:
    """What has to be equal for a run to go on."""
    trainer = run.trainer
    parameters = [
        f"{name} {array.shape} {array.dtype}" for name, array in run.model.parameters().items()
    ]
    return {
        "model": text_of(run.model),
        "parameters": hashlib.sha256("\n".join(parameters).encode()).hexdigest()[:16],
        "loss": text_of(trainer.objective.loss),
        "optimizer": text_of(run.optimizer),
        "optimizer steps": str(getattr(run.optimizer, "steps", 0)),
        "schedule": text_of(trainer.schedule),
        "clip_norm": str(trainer.clip_norm),
        "seed": str(trainer.seed),
        "first epoch and step": f"{trainer.epoch}, {trainer.step}",
        "batch_size": str(run.batch_size),
        "metrics": ", ".join(metric.name for metric in run.metrics),
        "early_stopping": repr(run.early_stopping),
        "data": data_digest(run.source),
        "validation data": "none" if run.validation is None else data_digest(run.validation),
    }


def data_digest(source: Source) -> str:
    """A digest of all arrays of a source."""
    digest = hashlib.sha256()
    for name, array in source.arrays():
        _add(digest.update, name, array)
    return digest.hexdigest()[:16]


def text_of(value: Any) -> str:
    """A description of a setting that is the same in another process."""
    if isinstance(getattr(value, "__qualname__", None), str):  # a function
        return f"{value.__module__}.{value.__qualname__}"
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)).split())


def _state_of(run: Any) -> tuple[Arrays, dict[str, Any]]:
    """All that a run depends on: arrays by name, and the rest as JSON can hold it."""
    arrays = {f"model.{name}": array for name, array in run.model.parameters().items()}
    optimizer = {}
    for name, value in run.optimizer.state_dict().items():
        if isinstance(value, np.ndarray):
            arrays[f"optimizer.{name}"] = value
        else:
            optimizer[name] = value
    if run.best_parameters is not None:
        arrays |= {f"best.{name}": array for name, array in run.best_parameters.items()}
    carried: list[np.ndarray] = []
    form = _flatten(_joined(run), carried)
    arrays |= {f"state.{number}": array for number, array in enumerate(carried)}
    bits: list[np.ndarray] = []
    states = run.callback_states()
    if states is not None:
        states = {name: pack(value, f"state of {name}", bits) for name, value in states.items()}
    arrays |= {f"callbacks.{number}": array for number, array in enumerate(bits)}
    return arrays, {
        "format": FORMAT,
        "versions": {"fastlstm": __version__, "numpy": np.__version__},
        "epoch": run.epoch,
        "step": run.step,
        "position": run.position,
        "optimizer": optimizer,
        "sums": run.sums.sums,
        "state": form,
        "history": run.history.to_json(),
        "best": run.best,
        "reference": run.reference,
        "waited": run.waited,
        "stop": run.stop,
        "callbacks": states,
    }


def _set_state(run: Any, arrays: Arrays, numbers: Mapping[str, Any]) -> None:
    def part(prefix: str) -> Arrays:
        found = ((name.partition("."), array) for name, array in arrays.items())
        return {rest: array for (first, _, rest), array in found if first == prefix}

    run.model.load_state_dict(part("model"))
    run.optimizer.load_state_dict(numbers["optimizer"] | part("optimizer"))
    run.best_parameters = part("best") or None
    run.trainer.epoch, run.trainer.step = numbers["epoch"], numbers["step"]
    run.position, run.state = numbers["position"], _unflatten(numbers["state"], part("state"))
    run.sums.sums = {name: (total, weight) for name, (total, weight) in numbers["sums"].items()}
    run.history = type(run.history).from_json(numbers["history"])
    run.best, run.reference = numbers["best"], numbers["reference"]
    run.waited, run.stop = numbers["waited"], numbers["stop"]
    states = numbers.get("callbacks", {})  # older checkpoints have none
    if states is not None:
        bits = part("callbacks")
        run.loaded_states = {name: unpack(form, bits) for name, form in states.items()}
    if run.stop in ("", "epochs"):  # others may be wanted now
        run.stop = "epochs" if run.epoch >= run.epochs else ""


def share_state(run: Any) -> None:
    """Let every rank go on from the state of rank 0."""
    ranks = run.ranks
    if ranks.size == 1:
        return
    arrays, numbers = ranks.broadcast(Place.STATE, *_state_of(run))
    if ranks.rank:
        _set_state(run, arrays, numbers)
    run.state = _map(lambda array: array[:, ranks.share(array.shape[1])], run.state)


def _joined(run: Any) -> Any:
    """The state of the rows of all ranks; None if no batch goes on with it."""
    ranks, state = run.ranks, run.state
    if ranks.size == 1:
        return state
    if isinstance(run.source, Sequences):
        return None
    parts = []
    for root in range(ranks.size):
        own: list[np.ndarray] = []
        form = _flatten(state, own)
        named = {str(k): array for k, array in enumerate(own)}
        arrays, form = ranks.broadcast(Place.STATE, named, form, root)
        if form is not None:
            parts.append(_unflatten(form, arrays))
    return _map(lambda *arrays: np.concatenate(arrays, axis=1), *parts) if parts else None


def _read(path: str) -> tuple[Arrays, dict[str, Any]]:
    arrays, metadata = read_safetensors(path)
    if KEY not in metadata:
        raise ValueError("it is no checkpoint of fastlstm")
    if metadata.get(DIGEST) != _digest(arrays, metadata[KEY]):
        raise ValueError("it is damaged: its digest does not fit")
    numbers: dict[str, Any] = json.loads(metadata[KEY])
    if numbers["format"] != FORMAT:
        raise ValueError(f"its format is {numbers['format']}, and this version reads {FORMAT}")
    return arrays, numbers


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        _add(digest.update, name, arrays[name])
    return digest.hexdigest()


def _add(update: Callable[[Any], None], name: str, array: np.ndarray) -> None:
    update(f"{name} {array.shape} {array.dtype.str};".encode())
    update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _flatten(state: Any, arrays: list[np.ndarray]) -> Any:
    """The form of a state of tuples, lists, arrays and None, as JSON; its arrays are appended."""
    if isinstance(state, (tuple, list)):
        return [type(state).__name__, *(_flatten(part, arrays) for part in state)]
    if state is None:
        return None
    arrays.append(state)
    return len(arrays) - 1


def _unflatten(form: Any, arrays: Arrays) -> Any:
    if isinstance(form, list):
        parts = (_unflatten(part, arrays) for part in form[1:])
        return tuple(parts) if form[0] == "tuple" else list(parts)
    return None if form is None else arrays[str(form)]


def _map(function: Callable[..., np.ndarray], *states: Any) -> Any:
    """A state whose arrays, (layers, rows, features), a function makes of those of others."""
    first = states[0]
    if isinstance(first, (tuple, list)):
        return type(first)(_map(function, *parts) for parts in zip(*states, strict=True))
    if first is None:
        return None
    if first.ndim != 3:
        raise ValueError(
            f"comm: expected states (layers, rows, features) to divide by rows, got {first.shape}"
        )
    return function(*states)


def _unwritten(path: str, error: OSError) -> OSError:
    """The error of a file that could not be written, with what remains."""
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    return OSError(
        error.errno,
        f"checkpoint: {reason}; the checkpoints before are unchanged",
        path,
    )
