"""A model as tasks call it."""

import copy
from typing import Any

from fastlstm.checks import read_size, takes
from fastlstm.module import Module
from fastlstm.training.calls import Caller
from fastlstm.training.data.sequences import Sequences

BATCH_SIZE = 32


class Scorer:
    """A copy of a model, which later training does not change, and how it is called.

    All tasks of a prediction share one.
    """

    def __init__(self, model: Any, method: str, batch_size: int | None, threads: int | None):
        threads = None if threads is None else read_size("threads", threads)
        self.method = method
        self.caller: Caller | None = None
        if isinstance(model, Module):
            if method != "predict":
                raise ValueError(f"method: a Module has only 'predict', got {method!r}")
            takes_threads = takes(model.forward, "threads") and takes(model.backward, "threads")
            self.caller = Caller(copy.deepcopy(model), threads if takes_threads else None)
            self.batch_size = read_size(
                "batch_size", BATCH_SIZE if batch_size is None else batch_size
            )
            return
        if not callable(getattr(model, "predict", None)):
            raise TypeError(
                f"model: expected a Module or a fitted estimator, got {type(model).__name__}"
            )
        if not callable(getattr(model, method, None)):
            raise ValueError(f"method: expected one of {type(model).__name__}, got {method!r}")
        if batch_size is not None:
            raise ValueError("batch_size: an estimator has its own, so expected None")
        self.model = copy.deepcopy(model)
        if threads is not None:
            own = self.model.get_params() if hasattr(model, "get_params") else {}
            counts = {name: threads for name in own if name.split("__")[-1] == "threads"}
            if counts:
                self.model.set_params(**counts)

    def __call__(self, x: Any, lengths: Any = None, mask: Any = None) -> Any:
        """Return the predictions for an array (N, T, ...) or a list of arrays (T_k, ...)."""
        if self.caller is not None:
            return self.caller.predict(Sequences(x, lengths=lengths, mask=mask), self.batch_size)
        function = getattr(self.model, self.method)
        given = {"lengths": lengths, "mask": mask}
        options = {name: value for name, value in given.items() if value is not None}
        for name in options:
            if not takes(function, name):
                kind = type(self.model).__name__
                raise ValueError(f"{name}: {kind}.{self.method} has none, so expected None")
        return function(x, **options)
