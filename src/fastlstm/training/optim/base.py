"""The base class of all optimizers: one step over all parameters of a module."""

import inspect
import weakref
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastlstm.changes import CHANGES
from fastlstm.checks import (
    check_shape,
    read_array,
    read_array_of,
    read_flag,
    read_number,
    read_size,
)
from fastlstm.kernels import kernels
from fastlstm.kernels.arguments import MOMENTS, Moments, Rule
from fastlstm.module import Gradients, Module

FLOATS = np.dtype(np.float32), np.dtype(np.float64)


class NonfiniteError(ValueError):
    """A gradient has an infinity or NaN."""


class Optimizer:
    """Base class of all optimizers. The first step binds an optimizer to its module.

    A copied or unpickled optimizer is not bound until its next step, nor is one after
    `load_state_dict`. The module of that step must have the same parameters as the first one.

    `lr`, `weight_decay`, `freeze` and `skip_nonfinite` may be changed between steps. Other
    arguments may not: a new optimizer takes over the running means by `load_state_dict`.

    Attributes
    ----------
    lr : float
        The learning rate. It may be changed between steps.
    steps : int
        How many steps were taken.
    skipped : int
        How many steps were skipped (`skip_nonfinite`).
    """

    _fixed: tuple[str, ...] = ()  # names of arguments that cannot be set later
    _moment_names: tuple[str, ...] = ()  # of the running means that are stored of each parameter

    def __init__(self, lr: float, weight_decay: float, freeze: Sequence[str], skip_nonfinite: bool):
        self.lr = lr
        self.weight_decay = weight_decay
        if not isinstance(freeze, (tuple, list)) or not all(isinstance(p, str) for p in freeze):
            raise TypeError(f"freeze: expected a tuple of names' prefixes, got {freeze!r}")
        self.freeze = tuple(freeze)
        self.skip_nonfinite = read_flag("skip_nonfinite", skip_nonfinite)
        self.steps = self.skipped = 0
        self._moments: dict[str, Moments] = {}  # by the parameter's name
        self._module: weakref.ref[Module] | None = None
        # The change that the last step made, its `freeze`, and the parameters after it.
        self._after_last: tuple[object, Any, Mapping[str, np.ndarray]] = None, None, {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed and name in self.__dict__:
            raise AttributeError(
                f"{name}: expected a new optimizer for another value than "
                f"{getattr(self, name)!r}, got {value!r}"
            )
        super().__setattr__(name, value)

    @property
    def lr(self) -> float:
        """The learning rate. It may be changed between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if isinstance(value, (Module, Mapping, list, tuple)):  # the parameters, as in torch
            raise TypeError(
                f"lr: expected a number, got {type(value).__name__}; an optimizer gets the module "
                "at each step, step(module, grads)"
            )
        self._lr = read_number("lr", value, 0, np.inf, open_above=True)

    @property
    def weight_decay(self) -> float:
        """λ. It may be changed between steps."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._weight_decay = read_number("weight_decay", value, 0, np.inf, open_above=True)

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
        rule = self._rule()
        spared = rule._replace(decay=0.0, shrink=1.0)
        # All arrays are new: tapes refer to the old parameters, and a later error must change none.
        new, moments = dict(parameters), {}
        for name, p in parameters.items():
            if self.freeze and name.startswith(self.freeze):
                continue
            update = kernels(p.dtype).update
            own = rule if self._decays(p) else spared
            old = self._moments.get(name) or self._first_moments(p)
            made = update(own, p, old, grads.params[name])
            if made is NotImplemented:
                g = _read_gradient(f"grads.params[{name!r}]", grads.params[name], p)
                made = update(own, p, old, g)
            if made is None:
                if not self.skip_nonfinite:
                    raise NonfiniteError(
                        f"grads.params[{name!r}]: expected finite numbers, got inf or NaN"
                    )
                self.skipped += 1
                return
            new[name], moments[name] = made
        change = module._replace(new)
        self._moments = moments
        self._module = weakref.ref(module)
        self._after_last = change, self.freeze, module.parameters()
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
        change, freeze, parameters = self._after_last
        known = self._module is not None and change is CHANGES.last and freeze is self.freeze
        if not known:
            parameters = module.parameters()
        if grads.params.keys() != parameters.keys():
            missing = sorted(parameters.keys() - grads.params.keys())
            unknown = sorted(grads.params.keys() - parameters.keys())
            raise ValueError(f"grads: missing names {missing}, unknown names {unknown}")
        if not known:
            self._check_parameters(parameters)
        return parameters

    def _check_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Raise unless the parameters fit `freeze` and the running means."""
        for prefix in self.freeze:
            if not any(name.startswith(prefix) for name in parameters):
                raise ValueError(
                    f"freeze: expected prefixes of names in {list(parameters)}, got {prefix!r}"
                )
        if not self.steps or not self._moment_names:
            return
        trained = {n: p for n, p in parameters.items() if not n.startswith(self.freeze)}
        fits = self._moments.keys() == trained.keys() and all(
            moment is None or (moment.shape == p.shape and moment.dtype == p.dtype)
            for name, p in trained.items()
            for moment in self._moments[name]
        )
        if not fits:
            raise ValueError("module: expected the parameters that this optimizer remembers")

    def _rule(self) -> Rule:
        """Return how the next step computes; `self.steps` is 0 at the first one."""
        raise NotImplementedError

    def _decays(self, parameter: np.ndarray) -> bool:
        """Whether weight decay acts on a parameter."""
        return True

    def _first_moments(self, parameter: np.ndarray) -> Moments:
        mean, square, velocity = (
            np.zeros_like(parameter) if kind in self._moment_names else None for kind in MOMENTS
        )
        return mean, square, velocity

    def state_dict(self) -> dict[str, Any]:
        """Return what a step depends on beside the constructor's arguments, as numbers and arrays.

        Returns
        -------
        dict
            "lr", "steps", "skipped", and copies of the running means: of Adam, "mean." and
            "square." followed by the parameter's name.
        """
        state: dict[str, Any] = {"lr": self.lr, "steps": self.steps, "skipped": self.skipped}
        for kind in self._moment_names:
            for name, moments in self._moments.items():
                state[f"{kind}.{name}"] = np.array(moments[MOMENTS.index(kind)])
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
        arrays: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in self._moment_names}
        for key, value in state_dict.items():
            if key in ("lr", "steps", "skipped"):
                continue
            moment, _, name = str(key).partition(".")
            if moment not in arrays or not steps:
                raise ValueError(f"state_dict: expected the state of this {kind}, got {key!r}")
            array = read_array_of(f"state_dict[{key!r}]", value, *FLOATS)
            arrays[moment][name] = np.array(array, order="C", subok=False)
        names = list(dict.fromkeys(chain.from_iterable(arrays.values())))
        for moment, by_name in arrays.items():
            if lacking := [f"{moment}.{name}" for name in names if name not in by_name]:
                raise ValueError(f"state_dict: missing names {lacking}")
        if steps and arrays and not names and self.freeze == ():
            raise ValueError(f"state_dict: expected running means of {kind} after {steps} steps")
        self._lr, self.steps, self.skipped = lr, steps, skipped
        mean, square, velocity = (arrays.get(kind, {}) for kind in MOMENTS)
        self._moments = {n: (mean.get(n), square.get(n), velocity.get(n)) for n in names}
        self._module = None

    def __repr__(self) -> str:
        texts = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name)
            if argument.kind is not argument.KEYWORD_ONLY or value != argument.default:
                texts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_module": None, "_after_last": (None, None, {})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # joblib.load(path, mmap_mode="r") gives a subclass of arrays.
        plain = {
            name: tuple(None if part is None else np.asarray(part) for part in moments)
            for name, moments in state["_moments"].items()
        }
        self.__dict__.update(state, _moments=plain)


def check_params(name: str, grads: Gradients) -> None:
    """Raise TypeError unless the gradients of parameters are a mapping."""
    if not isinstance(grads.params, Mapping):
        got = type(grads.params).__name__
        raise TypeError(f"{name}.params: expected a mapping of names to arrays, got {got}")


def _read_gradient(name: str, gradient: Any, parameter: np.ndarray) -> np.ndarray:
    array = read_array(name, gradient, parameter.dtype)
    check_shape(name, array, *parameter.shape)
    return np.array(array, order="C", subok=False)
