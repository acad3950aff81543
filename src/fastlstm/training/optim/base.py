"""The base class of all optimizers: one step over all parameters of a module."""

import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.checks import (
    check_shape,
    quiet,
    read_array,
    read_array_of,
    read_flag,
    read_number,
    read_size,
)
from fastlstm.module import Gradients, Module

CHUNK = 32768  # numbers of each array: those of all arrays of a step fit a core's cache
FLOATS = np.dtype(np.float32), np.dtype(np.float64)
Moments = dict[str, dict[str, np.ndarray]]  # by the moment's name, then by the parameter's


class Optimizer:
    """Base class of all optimizers. The first step binds an optimizer to its module.

    A copied or unpickled optimizer is not bound until its next step, nor is one after
    `load_state_dict`. The module of that step must have the same parameters as the first one.

    Attributes
    ----------
    lr : float
        The learning rate. It may be changed between steps.
    steps : int
        How many steps were taken.
    skipped : int
        How many steps were skipped (`skip_nonfinite`).
    """

    _moment_names: tuple[str, ...] = ()  # of the running means that are stored of each parameter
    _decoupled = False  # whether the weight decay acts on the parameter, not on its gradient

    def __init__(self, lr: float, weight_decay: float, freeze: Sequence[str], skip_nonfinite: bool):
        self.lr = lr
        self.weight_decay = read_number("weight_decay", weight_decay, 0, np.inf, open_above=True)
        if not isinstance(freeze, (tuple, list)) or not all(isinstance(p, str) for p in freeze):
            raise TypeError(f"freeze: expected a tuple of names' prefixes, got {freeze!r}")
        self.freeze = tuple(freeze)
        self.skip_nonfinite = read_flag("skip_nonfinite", skip_nonfinite)
        self.steps = self.skipped = 0
        self._moments: Moments = {}
        self._module: weakref.ref[Module] | None = None

    @property
    def lr(self) -> float:
        """The learning rate. It may be changed between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = read_number("lr", value, 0, np.inf, open_above=True)

    def step(self, module: Module, grads: Gradients) -> None:
        """Update the parameters of `module` by their gradients.

        Parameters
        ----------
        module : Module
        grads : Gradients
            Those of frozen parameters are ignored.

        Raises
        ------
        ValueError
            The optimizer is bound to another module, names or shapes in `grads.params` are not
            those of `module.parameters()`, a gradient has an infinity or NaN and `skip_nonfinite`
            is False, or no parameter's name begins with a prefix in `freeze`.
        TypeError
            `module` is not a layer, `grads` is not Gradients, or a gradient is not of real numbers.

        Notes
        -----
        After an error, module and optimizer are unchanged.
        """
        parameters = self._check(module, grads)
        trained = {n: p for n, p in parameters.items() if not n.startswith(self.freeze)}
        if self.steps:
            self._check_moments(trained)
        # All arrays are new: tapes refer to the old parameters, and a later error must change none.
        new: dict[str, np.ndarray] = {}
        moments: Moments = {kind: {} for kind in self._moment_names}
        with _without_warnings():
            gradients = {name: _read_gradient(name, grads, old) for name, old in trained.items()}
            for decay, names in self._groups(trained):
                olds = [trained, gradients, *(self._moments.values() if self.steps else ())]
                updated = self._updated([_join(by_name, names) for by_name in olds], decay)
                if updated is None:
                    if not self.skip_nonfinite:
                        bad = next(name for name in names if not _is_finite(gradients[name]))
                        raise ValueError(
                            f"grads.params[{bad!r}]: expected finite numbers, got inf or NaN"
                        )
                    self.skipped += 1
                    return
                for by_name, flat in zip((new, *moments.values()), updated, strict=True):
                    by_name.update(_split(flat, names, trained))
        module.assign({**parameters, **new})
        self._moments = moments
        self._module = weakref.ref(module)
        self.steps += 1

    def _check(self, module: Module, grads: Gradients) -> Mapping[str, np.ndarray]:
        """Return the module's parameters, which must fit the optimizer and the gradients."""
        if not isinstance(module, Module):
            raise TypeError(f"module: expected a layer, got {type(module).__name__}")
        if not isinstance(grads, Gradients):
            raise TypeError(f"grads: expected Gradients, got {type(grads).__name__}")
        if self._module is not None and self._module() is not module:
            raise ValueError(
                "module: expected the one of the first step; use an optimizer for each"
            )
        check_params("grads", grads)
        parameters = module.parameters()
        if grads.params.keys() != parameters.keys():
            missing = sorted(parameters.keys() - grads.params.keys())
            unknown = sorted(grads.params.keys() - parameters.keys())
            raise ValueError(f"grads: missing names {missing}, unknown names {unknown}")
        for prefix in self.freeze:
            if not any(name.startswith(prefix) for name in parameters):
                raise ValueError(
                    f"freeze: expected prefixes of names in {list(parameters)}, got {prefix!r}"
                )
        return parameters

    def _groups(self, parameters: Mapping[str, np.ndarray]) -> list[tuple[float, list[str]]]:
        """Names of parameters, those of small ones together, and the weight decay of each group."""
        groups: list[tuple[float, list[str]]] = []
        open_groups: dict[Any, tuple[int, list[str]]] = {}
        for name, parameter in parameters.items():
            key = parameter.dtype, self._decay(parameter)
            size, names = open_groups.get(key, (CHUNK + 1, []))
            if size + parameter.size > CHUNK:
                size, names = 0, []
                groups.append((key[1], names))
            names.append(name)
            open_groups[key] = size + parameter.size, names
        return groups

    def _updated(self, old: Sequence[np.ndarray], decay: float) -> list[np.ndarray] | None:
        """The new parameters and moments of a group, or None if a gradient is not finite.

        `old` are its parameters, gradients and moments, all of them flat; without moments in the
        first step. Every array passes through the cache once.
        """
        size, dtype, count = old[0].size, old[0].dtype, len(self._moment_names)
        new = [np.empty(size, dtype) for _ in range(1 + count)]
        works = np.empty((2, min(CHUNK, size)), dtype)
        for start in range(0, size, CHUNK):
            chunk = slice(start, start + CHUNK)
            p, g, *moments = [array[chunk] for array in old]
            out, *new_moments = [array[chunk] for array in new]
            work, decayed = works[:, : p.size]
            if not _is_finite(g):
                return None
            if not self.steps:
                moments = new_moments
                for moment in moments:
                    moment[:] = 0
            if decay and self._decoupled:
                p = np.multiply(p, 1 - self.lr * decay, out=decayed)
            elif decay:
                np.multiply(p, decay, out=decayed)
                g = np.add(g, decayed, out=decayed)
            self._update(p, g, out, moments, new_moments, work)
        return new

    def _decay(self, parameter: np.ndarray) -> float:
        """The weight decay of one parameter."""
        return self.weight_decay

    def _update(
        self,
        p: np.ndarray,  # a part of a parameter, [n]; so are all others
        g: np.ndarray,  # its gradient, with the weight decay
        out: np.ndarray,  # OUT: its new value
        old: Sequence[np.ndarray],  # its moments, in the order of `_moment_names`
        new: Sequence[np.ndarray],  # OUT: its new moments; at the first step the same arrays
        work: np.ndarray,  # to be overwritten
    ) -> None:
        """Compute the new value and moments; `self.steps` is 0 at the first step."""
        raise NotImplementedError

    def _check_moments(self, parameters: Mapping[str, np.ndarray]) -> None:
        fits = all(
            by_name.keys() == parameters.keys()
            and all(
                moment.shape == parameters[name].shape and moment.dtype == parameters[name].dtype
                for name, moment in by_name.items()
            )
            for by_name in self._moments.values()
        )
        if not fits:
            raise ValueError("module: expected the parameters that this optimizer remembers")

    def state_dict(self) -> dict[str, Any]:
        """Return what a step depends on beside the constructor's arguments, as numbers and arrays.

        Returns
        -------
        dict
            "lr", "steps", "skipped", and copies of the running means: of Adam, "mean." and
            "square." followed by the parameter's name.
        """
        state: dict[str, Any] = {"lr": self.lr, "steps": self.steps, "skipped": self.skipped}
        for kind, by_name in self._moments.items():
            state |= {f"{kind}.{name}": array.copy() for name, array in by_name.items()}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on as the optimizer that `state_dict` is from: its next steps have the same bits.

        Parameters
        ----------
        state_dict : mapping of str to number or array
            From `state_dict` of an optimizer of the same kind and settings. Arrays are copied.

        Raises
        ------
        ValueError
            Names are missing or unknown, or a number is negative.
        TypeError
            `state_dict` is not a mapping of numbers and arrays of float32 or float64.

        Notes
        -----
        After an error, the optimizer is unchanged.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        kind = type(self).__name__
        missing = [name for name in ("lr", "steps", "skipped") if name not in state_dict]
        if missing:
            raise ValueError(f"state_dict: missing names {missing}")
        lr = read_number("state_dict['lr']", state_dict["lr"], 0, np.inf, open_above=True)
        steps = read_size("state_dict['steps']", state_dict["steps"], 0)
        skipped = read_size("state_dict['skipped']", state_dict["skipped"], 0)
        moments: Moments = {moment: {} for moment in self._moment_names} if steps else {}
        for key, value in state_dict.items():
            if key in ("lr", "steps", "skipped"):
                continue
            moment, _, name = str(key).partition(".")
            if moment not in moments:
                raise ValueError(f"state_dict: expected the state of this {kind}, got {key!r}")
            array = read_array_of(f"state_dict[{key!r}]", value, *FLOATS)
            moments[moment][name] = np.array(array, order="C", subok=False)
        names = set().union(*moments.values())
        for moment, by_name in moments.items():
            if lacking := sorted(names - by_name.keys()):
                raise ValueError(f"state_dict: missing names {[f'{moment}.{n}' for n in lacking]}")
        if moments and not names and self.freeze == ():
            raise ValueError(f"state_dict: expected running means of {kind} after {steps} steps")
        self._lr, self.steps, self.skipped = lr, steps, skipped
        self._moments, self._module = moments, None

    def __repr__(self) -> str:
        texts = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name)
            if argument.kind is not argument.KEYWORD_ONLY or value != argument.default:
                texts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_module": None}


def check_params(name: str, grads: Gradients) -> None:
    """Raise TypeError unless the gradients of parameters are a mapping."""
    if not isinstance(grads.params, Mapping):
        got = type(grads.params).__name__
        raise TypeError(f"{name}.params: expected a mapping of names to arrays, got {got}")


def _read_gradient(name: str, grads: Gradients, parameter: np.ndarray) -> np.ndarray:
    of_name = f"grads.params[{name!r}]"
    gradient = read_array(of_name, grads.params[name], parameter.dtype)
    check_shape(of_name, gradient, *parameter.shape)
    return gradient


def _join(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The arrays of these names as one vector."""
    flat = [arrays[name].reshape(-1) for name in names]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _split(
    flat: np.ndarray, names: Sequence[str], like: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Undo `_join`. The arrays are read-only views: a Module takes these without a copy."""
    flat.flags.writeable = False
    start = 0
    for name in names:
        shape, size = like[name].shape, like[name].size
        yield name, flat[start : start + size].reshape(shape)
        start += size


def _is_finite(array: np.ndarray) -> bool:
    with quiet():
        total = array.sum()  # an infinity or NaN would make it one; an overflow may, too
    return bool(np.isfinite(total) or np.isfinite(array).all())


def _without_warnings() -> np.errstate:
    """A context without NumPy's warnings; an error that the user asked NumPy for stays one."""
    ignored: Any = {kind: "ignore" for kind, reply in np.geterr().items() if reply == "warn"}
    return np.errstate(**ignored)
