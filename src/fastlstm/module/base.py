"""The base class of all layers: parameters, a call, forward and backward."""

import inspect
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.changes import CHANGES
from fastlstm.checks import check_shape, read_array, read_flag, read_plain, take_array
from fastlstm.module.values import NO_PARAMETERS, Gradients, Names, Output, Parameters


class Module:
    """Base class of all layers, and of a user's own models.

    ``module(x)`` is inference. ``module.forward(x)`` is the call of training: it applies dropout
    and returns the result with a tape, from which ``module.backward(tape, dresult)`` computes the
    `Gradients`. A tape serves one backward. (torch's `forward` is this library's ``module(x)``.)

    A subclass defines `__call__`, `forward` and `backward`. A module assigned to an attribute
    becomes a child: its parameters are also parameters of the model, as "attribute.name". `define`
    adds parameters of the model itself, and `collect` joins the gradients of children and of these
    parameters. Modules in a list are not children; use a `Sequential` for several.

    Another thread may set parameters during a call. Then a `Sequential` computes with one set of
    parameters throughout, also in modules inside it; wrap a model of your own in a `Sequential` to
    get the same for its children.

    A `Sequential` calls a module with ``is_recurrent = True`` as it calls an `LSTM`:
    ``(y, state) = module(x, state, **options)``. It calls one with ``acts_on_steps = True``, which
    computes each step from that step of x alone, on those steps of a ragged batch that count,
    (N, features); other modules get the batch, with zeros in its padding. One with
    ``pools_steps = True``, whose result has a row for each sequence in place of steps, gets
    ``lengths=`` beside it, in calls and in `forward`.

    Examples
    --------
    A recurrent layer with a residual connection and a learned scale:

    >>> import numpy as np, fastlstm as fl
    >>> class Residual(fl.Module):
    ...     def __init__(self, size):
    ...         self.lstm = fl.LSTM(size, size, rng=0)
    ...         self.define(scale=np.ones(size, np.float32))
    ...     def __call__(self, x):
    ...         return x + self.scale * self.lstm(x)[0]
    ...     def forward(self, x):
    ...         (y, _), tape = self.lstm.forward(x)
    ...         return x + self.scale * y, (tape, y)
    ...     def backward(self, tape, dresult):
    ...         tape, y = tape
    ...         grads = self.lstm.backward(tape, self.scale * dresult)
    ...         dscale = (y * dresult).sum(axis=(0, 1))
    ...         return self.collect(x=dresult + grads.x, lstm=grads, scale=dscale)
    >>> model = Residual(3)
    >>> result, tape = model.forward(np.ones((7, 2, 3), np.float32))
    >>> fl.optim.SGD(lr=0.1).step(model, model.backward(tape, result))
    >>> list(model.parameters())[:2]
    ['scale', 'lstm.weight_ih_l0']
    """

    is_recurrent = False  # whether calls take and return a state
    acts_on_steps = False  # whether each step of the result depends on that step of x alone
    pools_steps = False  # whether the result has no steps, but one vector for each row
    _parameters: Parameters
    # The last change of attributes that was seen, and the modules after it: see `_parts`.
    _last_parts: tuple[object, tuple[tuple[str, "Module"], ...]] = None, ()

    def __call__(self, x: Any) -> Any:
        """Return the result for x, as inference: nothing is saved."""
        raise NotImplementedError(f"{type(self).__name__}: expected a __call__ of its own")

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return the result for x as in training, and the tape for `backward`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a forward of its own")

    def backward(self, tape: Any, dresult: Any) -> Gradients:
        """Return gradients of the input and of every parameter, from that of the result."""
        raise NotImplementedError(f"{type(self).__name__}: expected a backward of its own")

    # Parameters.

    def define(self, **arrays: Any) -> None:
        """Add parameters to the module itself.

        Parameters
        ----------
        **arrays : float32 or float64 arrays
            By name; they are copied.

        Raises
        ------
        ValueError
            A name is an attribute already.
        TypeError
            An array has another dtype.
        """
        own = dict(self.__dict__.get("_parameters", {}))
        for name, value in arrays.items():
            if name not in own and hasattr(self, name):
                raise ValueError(f"{name}: expected a new name, but it is an attribute already")
            array = np.array(read_plain(name, value), order="C")
            if array.dtype not in (np.float32, np.float64):
                raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
            own[name] = array
        self._parameters = Parameters(own)

    def parameters(self) -> Mapping[str, np.ndarray]:
        """Return every parameter by name, as read-only arrays; a child's as "child.name"."""
        parts = self._parts()
        if len(parts) == 1:
            own: Mapping[str, np.ndarray] = self.__dict__.get("_parameters", NO_PARAMETERS)
            return own
        with CHANGES.lock:
            return {
                prefix + name: array
                for prefix, module in parts
                for name, array in module.__dict__.get("_parameters", NO_PARAMETERS).arrays.items()
            }

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set all parameters to `arrays` at once, without a copy.

        This is for optimizers, which make new arrays; use `load_state_dict` otherwise.

        Parameters
        ----------
        arrays : mapping of str to array
            Every parameter by name, with the right shape and dtype. The arrays become read-only.
            Views, whose memory others can write, are copied.

        Raises
        ------
        ValueError
            Names are missing or unknown, or a shape differs. The module is then unchanged.
        TypeError
            A value is not an array of the parameter's dtype. The module is then unchanged.
        """
        parameters = self.parameters()
        if arrays.keys() != parameters.keys():
            raise ValueError(f"arrays: expected {list(parameters)}, got {list(arrays)}")
        for name, old in parameters.items():
            new = arrays[name]
            if type(new) is not np.ndarray or new.dtype != old.dtype:
                got = new.dtype if isinstance(new, np.ndarray) else type(new).__name__
                raise TypeError(f"arrays[{name!r}]: expected a {old.dtype} array, got {got}")
            check_shape(f"arrays[{name!r}]", new, *old.shape)
        self._replace(arrays)

    def _replace(self, arrays: Mapping[str, np.ndarray]) -> object:
        """`assign` without checks; returns the change of `CHANGES` that it made."""
        new = [
            (module, Parameters({k: np.asarray(arrays[prefix + k], order="C") for k in own.arrays}))
            for prefix, module in self._parts()
            if (own := module.__dict__.get("_parameters", NO_PARAMETERS)).arrays
        ]
        with CHANGES.lock:
            for module, parameters in new:
                module._parameters = parameters
            return CHANGES.last

    def _parts(self) -> tuple[tuple[str, "Module"], ...]:
        """This module and all modules in it, each with the prefix of its parameters' names."""
        change, parts = self._last_parts
        if change is not CHANGES.attributes:
            change = CHANGES.attributes
            parts = (
                ("", self),
                *(
                    (f"{name}.{prefix}", module)
                    for name, child in self._children.items()
                    for prefix, module in child._parts()
                ),
            )
            self.__dict__["_last_parts"] = change, parts
        return parts

    def collect(self, *, x: Any = None, state: Any = None, **parts: Any) -> Gradients:
        """Return the module's `Gradients`, joined from those of children and of own parameters.

        Parameters
        ----------
        x, state : gradients of the input and of the initial state
        **parts
            By name: the `Gradients` of a child, or the gradient of one of its own parameters.

        Raises
        ------
        ValueError
            A name is neither that of a child nor that of a parameter.
        """
        params: dict[str, np.ndarray] = {}
        for name, array in (("x", x), ("state", state)):
            if isinstance(array, Gradients):
                raise TypeError(
                    f"{name}: expected an array, got Gradients; rename the child {name}"
                )
        for name, part in parts.items():
            if name in self._children and isinstance(part, Gradients):
                params |= {f"{name}.{key}": array for key, array in part.params.items()}
            elif name in self.__dict__.get("_parameters", ()):
                params[name] = read_array(name, part, self._parameters[name].dtype)
            else:
                raise ValueError(
                    f"{name}: expected Gradients of a child or the gradient of a parameter, "
                    f"got {type(part).__name__}"
                )
        return Gradients(x, state, params)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter, under torch's names."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, *, prefix: str = ""
    ) -> Names:
        """Set every parameter to a copy of an array of the same name and shape.

        Parameters
        ----------
        state_dict : mapping of str to array
            Arrays, or torch tensors; also bfloat16.
        strict : bool
            Whether names may neither be missing nor unknown. If not, parameters whose name is
            missing stay as they are.
        prefix : str
            Only names that begin with it are taken, without it: "lstm." for a part of a larger
            model.

        Returns
        -------
        missing_keys, unexpected_keys : lists of str
            A named tuple. The first has names of parameters, the second those of `state_dict` that
            begin with `prefix`. Both are empty if `strict`.

        Raises
        ------
        ValueError
            Names are missing or unknown, or a shape differs. The layer is then unchanged.
        TypeError
            `state_dict` is not a mapping of real arrays. The layer is then unchanged.

        Examples
        --------
        >>> import fastlstm as fl
        >>> names = {f"encoder.{k}": v for k, v in fl.LSTM(3, 5).state_dict().items()}
        >>> fl.LSTM(3, 5).load_state_dict(names | {"step": 7}, prefix="encoder.")
        Names(missing_keys=[], unexpected_keys=[])
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict: expected a mapping of names to arrays, got {type(state_dict)!r}"
            )
        strict = read_flag("strict", strict)
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected text, got {prefix!r:.60}")
        parameters = self.parameters()
        wanted = {prefix + name: name for name in parameters}
        missing = [full for full in wanted if full not in state_dict]
        under = [
            n for n in state_dict if not prefix or (isinstance(n, str) and n.startswith(prefix))
        ]
        unknown = [name for name in under if name not in wanted]
        if strict and (missing or unknown):
            advice = _about_prefix(list(state_dict), parameters)
            raise ValueError(
                f"state_dict: {advice}missing names {missing}, unknown names {unknown}"
            )
        arrays = dict(parameters)
        for full, name in wanted.items():
            if full in state_dict:
                old, entry = parameters[name], f"state_dict[{full!r}]"
                new = read_array(entry, take_array(entry, state_dict[full]), old.dtype)
                check_shape(entry, new, *old.shape)
                arrays[name] = np.array(new, order="C", subok=False)
        self.assign(arrays)
        return Names([wanted[full] for full in missing], unknown)

    def num_parameters(self) -> int:
        """Return how many numbers the parameters have together."""
        return sum(array.size for array in self.parameters().values())

    @property
    def _inputs(self) -> int | None:
        """How many features of x the module reads; None if it does not say."""
        return None

    def _output(self, before: Output) -> Output:
        """What is known of the result, from what is known of x."""
        batch_first = getattr(self, "batch_first", before.batch_first)
        return Output(batch_first=batch_first, pooled=self.pools_steps)

    def _after(self, before: Output) -> "Module":
        """The module as it acts on such an x, within a `Sequential`."""
        return self

    @property
    def _children(self) -> dict[str, "Module"]:
        children: dict[str, Module] = self.__dict__.get("_child_modules", {})
        return children

    def _bound_copy(self, twins: dict[int, "Module"], bind: bool = True) -> "Module":
        """A shallow copy of this module and of all modules in it.

        With `bind`, it is for calls that must not see later parameters: the copy passes everything
        that is set on it on to the module. `twins` has the copies made so far, by id.
        """
        twin = twins.get(id(self))
        if twin is None:
            twin = twins[id(self)] = object.__new__(type(self))
            children = {name: m._bound_copy(twins, bind) for name, m in self._children.items()}
            twin.__setstate__({k: _with_twins(v, twins) for k, v in self.__getstate__().items()})
            own = twin.__dict__
            own["_child_modules"] = children
            own.pop("_original_module", None)
            if bind:
                own["_original_module"] = self._unbound
        return twin

    def _renewed(self, original: "Module") -> "Module":
        """This bound copy of a module without others in it, with the parameters of this moment."""
        renewed = self
        if "_parameters" in self.__dict__:
            renewed, parameters = object.__new__(type(self)), original._parameters
            renewed.__dict__.update(self.__dict__, **parameters.arrays, _parameters=parameters)
        return renewed

    @property
    def _unbound(self) -> "Module":
        """The module itself, which `_bound_copy` copied."""
        original: Module = self.__dict__.get("_original_module", self)
        return original

    def __copy__(self) -> "Module":
        """A copy with parameters, and children, of its own."""
        return self._bound_copy({}, bind=False)

    def __setattr__(self, name: str, value: Any) -> None:
        original = self._unbound
        if original is not self:
            setattr(original, name, value._unbound if isinstance(value, Module) else value)
        if name in self.__dict__.get("_parameters", ()):
            raise AttributeError(f"{name}: a parameter is set by load_state_dict or an optimizer")
        if isinstance(value, Module):
            for other, child in self._children.items():
                if child is value and other != name:
                    raise ValueError(f"{name}: expected another module than the child {other}")
            self.__dict__.setdefault("_child_modules", {})[name] = value
        elif name in self._children:
            del self._children[name]
        super().__setattr__(name, value)
        if name == "_parameters":
            # An attribute for each, since a `__getattr__` would slow down all attributes.
            self.__dict__.update(value.arrays)
        else:
            CHANGES.attributes = object()
        CHANGES.last = object()  # after the other, so that who sees it sees both

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__.get("_parameters", ()):
            raise AttributeError(f"{name}: a parameter cannot be deleted")
        original = self._unbound
        if original is not self:
            delattr(original, name)
        super().__delattr__(name)
        self._children.pop(name, None)
        CHANGES.attributes = object()
        CHANGES.last = object()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> np.ndarray: ...  # parameters are attributes, too

    def __getstate__(self) -> dict[str, Any]:
        """The attributes without what the last call has left for the next one.

        And without the parameters as attributes, which are in `_parameters`.
        """
        own = self.__dict__.get("_parameters", ())
        return {
            name: value
            for name, value in self.__dict__.items()
            if not name.startswith("_last_") and name not in own
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.update(state.get("_parameters", NO_PARAMETERS).arrays)

    def __repr__(self) -> str:
        """The arguments of the constructor that have no default or another value than it.

        If one of these is not an attribute, the children instead; they also stand for ``*modules``.
        """
        texts, has_modules = [], False
        signature = inspect.signature(type(self))
        for name, value in self._arguments().items():
            argument = signature.parameters[name]
            default = argument.default
            if value is inspect.Parameter.empty:
                return self._with_children()
            if argument.kind is argument.VAR_POSITIONAL:
                has_modules = True
                continue
            value = value.name if isinstance(value, np.dtype) else value
            shown = np.dtype(default).name if name == "dtype" else default
            if default is inspect.Parameter.empty:
                texts.append(repr(value))
            elif repr(value) != repr(shown):
                texts.append(f"{name}={value!r}")
        if has_modules:
            return self._with_children(*texts)
        return f"{type(self).__name__}({', '.join(texts)})"

    def _arguments(self) -> dict[str, Any]:
        """The arguments of the constructor but rng; `Parameter.empty` for one that is not kept."""
        return {
            name: self._argument(name, argument.default)
            for name, argument in inspect.signature(type(self)).parameters.items()
            if name != "rng" and argument.kind is not argument.VAR_KEYWORD
        }

    def _with_children(self, *others: str) -> str:
        lines = [*(f"({name}): {child!r}" for name, child in self._children.items()), *others]
        inner = textwrap.indent("\n".join(lines), "  ")
        return f"{type(self).__name__}(\n{inner}\n)" if lines else f"{type(self).__name__}()"

    def _argument(self, name: str, default: Any) -> Any:
        """The value of an argument of the constructor, or `default`."""
        if name in self.__dict__.get("_parameters", ()):
            return default
        return self.__dict__.get(name, default)


def _with_twins(value: Any, twins: Mapping[int, Module]) -> Any:
    """`value` with modules replaced by their copies, also in a tuple, list or dict."""
    if isinstance(value, Module):
        return twins.get(id(value), value)
    if type(value) in (tuple, list) and any(isinstance(part, Module) for part in value):
        return type(value)(_with_twins(part, twins) for part in value)
    if type(value) is dict and any(isinstance(part, Module) for part in value.values()):
        return {name: _with_twins(part, twins) for name, part in value.items()}
    return value


def _about_prefix(given: Iterable[Any], wanted: Mapping[str, Any]) -> str:
    """Advice where the names have a prefix, like "module.", which those of `wanted` lack."""
    names = [name for name in given if isinstance(name, str)]
    end = f".{next(iter(wanted), '')}"
    for name in names:
        if wanted and name.endswith(end):
            prefix = name[: len(name) - len(end) + 1]
            under = {name[len(prefix) :] for name in names if name.startswith(prefix)}
            if wanted.keys() <= under:
                which = "all names" if len(under) == len(names) else "the missing names"
                return f"{which} begin with {prefix!r}: pass prefix={prefix!r}; "
    return ""
