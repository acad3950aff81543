"""Optimizers and gradient clipping, with torch.optim's formulas."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, quiet, read_array, read_flag, read_number
from fastlstm.module import Gradients, Module

Moments = tuple[np.ndarray, ...]  # the running means that an optimizer stores of one parameter


class Optimizer:
    """Base class of all optimizers. The first step binds an optimizer to its module.

    A copied or unpickled optimizer is not bound until its next step. The module of that step must
    have the same parameters as the first one.
    """

    def __init__(self, lr: float, weight_decay: float):
        self.lr = lr
        self.weight_decay = read_number("weight_decay", weight_decay, 0, np.inf, open_above=True)
        self.steps = 0
        self._moments: dict[str, Moments] = {}
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

        Raises
        ------
        ValueError
            The optimizer is bound to another module, or names or shapes in `grads.params` are not
            those of `module.parameters()`.
        TypeError
            `module` is not a layer, `grads` is not Gradients, or a gradient is not of real numbers.

        Notes
        -----
        After an error, module and optimizer are unchanged.
        """
        if not isinstance(module, Module):
            raise TypeError(f"module: expected a layer, got {type(module).__name__}")
        if not isinstance(grads, Gradients):
            raise TypeError(f"grads: expected Gradients, got {type(grads).__name__}")
        if self._module is not None and self._module() is not module:
            raise ValueError(
                "module: expected the one of the first step; use an optimizer for each"
            )
        _check_params("grads", grads)
        parameters = module.parameters()
        if grads.params.keys() != parameters.keys():
            missing = sorted(parameters.keys() - grads.params.keys())
            unknown = sorted(grads.params.keys() - parameters.keys())
            raise ValueError(f"grads: missing names {missing}, unknown names {unknown}")
        if self.steps:
            self._check_moments(parameters)
        new_parameters, new_moments = {}, {}
        with _without_warnings():
            for name, parameter in parameters.items():
                of_name = f"grads.params[{name!r}]"
                gradient = read_array(of_name, grads.params[name], parameter.dtype)
                check_shape(of_name, gradient, *parameter.shape)
                if self.weight_decay:
                    gradient = gradient + self.weight_decay * parameter
                # All arrays are new: tapes refer to the old ones, and an error must change none.
                new_parameters[name], new_moments[name] = self._update(
                    parameter, gradient, self._moments.get(name, ()), self.steps + 1
                )
        module.assign(new_parameters)
        self._moments = new_moments
        self._module = weakref.ref(module)
        self.steps += 1

    def _update(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,  # with the weight decay
        moments: Moments,  # () at the first step
        step: int,  # 1 at the first step
    ) -> tuple[np.ndarray, Moments]:
        """Return the new parameter and moments, in new arrays."""
        raise NotImplementedError

    def _check_moments(self, parameters: Mapping[str, np.ndarray]) -> None:
        fits = self._moments.keys() == parameters.keys() and all(
            moment.shape == parameters[name].shape and moment.dtype == parameters[name].dtype
            for name, moments in self._moments.items()
            for moment in moments
        )
        if not fits:
            raise ValueError("module: expected the parameters that this optimizer remembers")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_module": None}


class SGD(Optimizer):
    """Stochastic gradient descent: p ← p - lr · g.

    With momentum μ, v ← μ v + g (v = g at the first step) replaces g. With `nesterov`, g + μ v
    replaces g (Sutskever et al. 2013, in the form of torch.optim.SGD).

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        μ; 0 for no momentum.
    weight_decay : float
        λ: adds λ · p to the gradient.
    nesterov : bool
        Whether to use Nesterov's form of momentum; needs a momentum above 0.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(lr, weight_decay)
        self.momentum = read_number("momentum", momentum, 0, np.inf, open_above=True)
        self.nesterov = read_flag("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0, got 0")

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, moments: Moments, step: int
    ) -> tuple[np.ndarray, Moments]:
        direction = gradient
        if self.momentum:
            velocity = np.empty_like(parameter)
            if moments:
                np.multiply(moments[0], self.momentum, out=velocity)
                velocity += gradient
            else:
                velocity[...] = gradient
            moments = (velocity,)
            direction = gradient + self.momentum * velocity if self.nesterov else velocity
        new = np.multiply(direction, self.lr, out=np.empty_like(parameter))
        return np.subtract(parameter, new, out=new), moments

    def __repr__(self) -> str:
        return (
            f"SGD(lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}, "
            f"nesterov={self.nesterov})"
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    m ← β1 m + (1 - β1) g and v ← β2 v + (1 - β2) g², both from zero; at step t
    p ← p - lr · (m / (1 - β1ᵗ)) / (√(v / (1 - β2ᵗ)) + ε).

    Parameters
    ----------
    lr : float
        Learning rate.
    betas : (float, float)
        β1 and β2, in [0, 1).
    eps : float
        ε.
    weight_decay : float
        λ: adds λ · p to the gradient.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(lr, weight_decay)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {betas!r}")
        self.betas = (
            read_number("betas[0]", betas[0], 0, 1, open_above=True),
            read_number("betas[1]", betas[1], 0, 1, open_above=True),
        )
        self.eps = read_number("eps", eps, 0, np.inf, open_above=True)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, moments: Moments, step: int
    ) -> tuple[np.ndarray, Moments]:
        beta1, beta2 = self.betas
        work = np.empty_like(parameter)
        mean = np.multiply(gradient, 1 - beta1, out=np.empty_like(parameter))
        square = np.multiply(gradient, gradient, out=np.empty_like(parameter))
        square *= 1 - beta2
        if moments:
            mean += np.multiply(moments[0], beta1, out=work)
            square += np.multiply(moments[1], beta2, out=work)
        np.sqrt(square, out=work)
        work /= (1 - beta2**step) ** 0.5
        work += self.eps
        np.divide(mean, work, out=work)
        work *= self.lr / (1 - beta1**step)
        return np.subtract(parameter, work, out=work), (mean, square)

    def __repr__(self) -> str:
        return (
            f"Adam(lr={self.lr}, betas={self.betas}, eps={self.eps}, "
            f"weight_decay={self.weight_decay})"
        )


def clip_grad_norm(grads: Gradients | Sequence[Gradients], max_norm: float) -> float:
    """Scale gradients down to a global norm of at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    grads : Gradients or list of Gradients
        All arrays in `params` are scaled in place, as one vector. `x` and `state` do not change.
    max_norm : float
        Above 0.

    Returns
    -------
    norm : float
        The norm before the scaling, accumulated in float64. If it is not finite, nothing is scaled.

    Raises
    ------
    ValueError
        `max_norm` is not above 0.
    TypeError
        `grads` is not Gradients, or a gradient is not a writable array of floats.
    """
    max_norm = read_number("max_norm", max_norm, 0, np.inf, open_above=True)
    if not max_norm:
        raise ValueError("max_norm: expected a number above 0, got 0")
    group = [grads] if isinstance(grads, Gradients) else grads
    if not isinstance(group, (list, tuple)) or not all(isinstance(g, Gradients) for g in group):
        raise TypeError(f"grads: expected Gradients or a list of them, got {grads!r:.60}")
    for k, gradients in enumerate(group):
        _check_params("grads" if gradients is grads else f"grads[{k}]", gradients)
    arrays = [array for gradients in group for array in gradients.params.values()]
    for array in arrays:
        if (
            not isinstance(array, np.ndarray)
            or isinstance(array, np.ma.MaskedArray)
            or array.dtype.kind != "f"
            or not array.flags.writeable
        ):
            raise TypeError("grads: expected params that are writable arrays of floats")
    with quiet():
        norm = _norm(arrays)
        if np.isfinite(norm) and norm > max_norm:
            for array in arrays:
                np.multiply(array, max_norm / norm, out=array, dtype=_wide(max_norm / norm, array))
    return norm


def _without_warnings() -> np.errstate:
    """A context without NumPy's warnings; an error that the user asked NumPy for stays one."""
    ignored: Any = {kind: "ignore" for kind, reply in np.geterr().items() if reply == "warn"}
    return np.errstate(**ignored)


def _norm(arrays: Sequence[np.ndarray]) -> float:
    """The norm of all arrays together; their squares may be beyond float64's range."""
    square = float(sum(np.square(array, dtype=np.float64).sum() for array in arrays))
    if not 1e-280 < square < np.inf:
        largest = float(max((np.abs(array).max(initial=0) for array in arrays), default=0))
        if 0 < largest < np.inf:
            scaled = (np.divide(array, largest, dtype=np.float64) for array in arrays)
            return largest * float(np.sqrt(sum(np.square(array).sum() for array in scaled)))
    return float(np.sqrt(square))


def _wide(factor: float, array: np.ndarray) -> np.dtype:
    """The dtype in which `array` can be multiplied by `factor`."""
    if factor >= np.finfo(array.dtype).tiny:
        return array.dtype
    return np.dtype(np.float64)


def _check_params(name: str, grads: Gradients) -> None:
    if not isinstance(grads.params, Mapping):
        got = type(grads.params).__name__
        raise TypeError(f"{name}.params: expected a mapping of names to arrays, got {got}")
