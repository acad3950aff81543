"""What the output depends on: gradients by the input, and changes of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import read_array, read_generator, read_number, read_size, warn_user
from fastlstm.engine.reading.mask import within
from fastlstm.inspection.calls.inference import Batch, Inference

LARGEST_GAP = 0.01  # by which the sum of integrated gradients may miss, without a warning
AT_A_TIME = 2**20  # numbers of the copies of x that one call of `effective_memory` takes


def saliency(
    model: Any, x: Any, target: Any = None, *, state: Any = None, lengths: Any = None
) -> np.ndarray:
    """Return how much each number of x moves the output: the absolute value of its gradient.

    The model is differentiated as a call computes it: no dropout, no mode to switch.

    Parameters
    ----------
    model : Module
        A layer or a model of layers. A model of your own needs a `backward` that returns the
        gradient of x.
    x : array (T, B, features), (B, T, features) with `batch_first`, or (T, features)
        For a model that begins with an `Embedding`, indices, without the axis of features.
    target : None, int or function
        The output that is explained. None: the sum of all units of each row's last step, or of the
        row if the model pools steps. An int: that unit, or class, of it. A function: it takes the
        result y of the model, without the state, and returns a number and its gradient by y.
    state, lengths : optional
        As in a call of the model. The state is held fixed.

    Returns
    -------
    array in the shape of x
        At least 0, and 0 after a row's end. Of indices: the Euclidean norm, over features, of the
        gradient by the embedded vectors.

    Raises
    ------
    TypeError
        `model` is no module with steps, x is a list, or the result needs a function as `target`.
    ValueError
        A shape or a value does not fit, or the model returns no gradient of x.

    References
    ----------
    Simonyan, Vedaldi & Zisserman 2014, "Deep inside convolutional networks", section 3.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> from fastlstm import inspection
    >>> model = fl.Sequential(fl.LSTM(3, 5, rng=0), fl.Last(), fl.Linear(5, 2, rng=0))
    >>> x = np.random.default_rng(0).standard_normal((7, 4, 3))
    >>> of_class_1 = inspection.saliency(model, x, target=1)
    >>> of_class_1.shape
    (7, 4, 3)
    >>> bool(of_class_1[-1].mean() > of_class_1[0].mean())  # later steps count more
    True
    """
    inference = Inference(model, x, state, lengths)
    _, dx = inference.gradient(inference.x, target)
    if inference.embedding is None:
        return np.asarray(np.abs(dx))
    return np.asarray(np.linalg.norm(dx, axis=-1))


def integrated_gradients(
    model: Any,
    x: Any,
    baseline: Any = None,
    steps: int = 64,
    target: Any = None,
    *,
    state: Any = None,
    lengths: Any = None,
) -> np.ndarray:
    r"""Return what each number of x contributes to the output, beside a baseline.

    The gradient is averaged along the straight line from the baseline x' to x:

        (x - x') ∗ ∫ ∂F(x' + a (x - x')) / ∂x da, over a from 0 to 1

    Together the contributions are F(x) - F(x') (completeness), where F is the number that `target`
    chooses.

    Parameters
    ----------
    model, x, target, state, lengths
        As in `saliency`.
    baseline : array or number, optional
        An input that says nothing; zeros if None. Of x's shape, or one that broadcasts to it. For a
        model of indices: indices in x's shape, or numbers for the embedded vectors.
    steps : int
        Points of the Gauss–Legendre quadrature. Each takes a `forward` and a `backward`.

    Returns
    -------
    array in the shape of x
        For a model of indices, in the shape of the embedded vectors, (T, B, embedding_dim): the sum
        over the last axis is a token's contribution.

    Warns
    -----
    UserWarning
        The contributions miss F(x) - F(x') by more than a hundredth of the sum of their absolute
        values: more steps are needed.

    References
    ----------
    Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks", ICML.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> from fastlstm import inspection
    >>> model = fl.LSTM(3, 5, dtype=np.float64, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((7, 4, 3))
    >>> contributions = inspection.integrated_gradients(model, x)
    >>> difference = model(x)[0][-1].sum() - model(np.zeros_like(x))[0][-1].sum()
    >>> bool(np.isclose(contributions.sum(), difference))
    True
    """
    inference = Inference(model, x, state, lengths)
    x = inference.x
    start = _read_baseline(baseline, inference)
    points, weights = np.polynomial.legendre.leggauss(read_size("steps", steps))
    average = np.zeros(x.shape)
    for point, weight in zip(points, weights, strict=True):  # on [-1, 1]
        at = start + (1 + point) / 2 * (x - start)
        average += weight / 2 * inference.gradient(at.astype(x.dtype), target)[1]
    result = (x - start) * average
    ends = [inference.score(inference(at), target)[0] for at in (start.astype(x.dtype), x)]
    gap = abs(result.sum() - (ends[1] - ends[0]))
    if gap > LARGEST_GAP * np.abs(result).sum():
        warn_user(
            f"steps: {steps} are too few; the contributions sum to {result.sum():.4g}, but the "
            f"output changes by {ends[1] - ends[0]:.4g}"
        )
    return np.asarray(result, x.dtype)


def _read_baseline(baseline: Any, inference: Inference) -> np.ndarray:
    """The baseline in float64 and in the shape of the inference's x."""
    shape = inference.x.shape
    if baseline is None:
        return np.zeros(shape)
    start = np.asarray(baseline)
    if inference.embedding is not None and start.dtype.kind in "iu" and start.ndim:
        start = inference.read(baseline, "baseline")
    try:
        return np.array(np.broadcast_to(read_array("baseline", start, np.dtype(float)), shape))
    except ValueError:
        raise ValueError(
            f"baseline: expected a shape that broadcasts to {shape}, got {start.shape}"
        ) from None


@dataclass(frozen=True, eq=False)
class EffectiveMemory:
    """How many steps back the last output depends on.

    Attributes
    ----------
    by_gradient, by_perturbation : int
        The most steps back, 0 being the last step itself, at which the curve is at least
        `threshold`.
    gradient : array (T,)
        By steps back: the norm, over rows and features, of the gradient of each row's last output
        by the input of that step, over the largest of them.
    perturbation : array (T,)
        By steps back: the norm, over rows and units, of the change of the last output when the
        input of that step is changed, over the largest of them.
    threshold : float
    """

    by_gradient: int
    by_perturbation: int
    gradient: np.ndarray
    perturbation: np.ndarray
    threshold: float

    def __str__(self) -> str:
        return (
            f"The last output depends on the input of up to {self.by_gradient} steps back by its "
            f"gradient, and {self.by_perturbation} by changes of the input, of "
            f"{len(self.gradient) - 1} (at {self.threshold:g} of the largest)."
        )


def effective_memory(
    model: Any, x: Any, threshold: float = 0.01, *, lengths: Any = None, rng: Any = 0
) -> EffectiveMemory:
    """Measure how many steps back the last output still depends on, in two ways.

    By the gradient of the last output, summed over its units; and by calls in which the input of
    one step is changed by normal noise of x's standard deviation, of all features and rows
    together. The first tells what learning can reach from here, the second what a real change
    does.

    Parameters
    ----------
    model, x, lengths
        As in `saliency`. For a model of indices, the embedded vectors are changed.
    threshold : float in (0, 1]
        The part of the largest effect from which a step counts.
    rng : seed or Generator
        Source of the noise.

    Returns
    -------
    EffectiveMemory

    Raises
    ------
    TypeError, ValueError
        As in `saliency`, or x has no steps.

    Notes
    -----
    It takes T calls of T steps, several at once as rows of one batch.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> from fastlstm import inspection
    >>> x = np.random.default_rng(0).standard_normal((50, 4, 3))
    >>> forgets = inspection.effective_memory(fl.LSTM(3, 8, forget_bias=0, rng=0), x)
    >>> keeps = inspection.effective_memory(fl.LSTM(3, 8, forget_bias=4, rng=0), x)
    >>> forgets.by_gradient < keeps.by_gradient
    True
    """
    threshold = read_number("threshold", threshold, 0, 1, open_below=True)
    inference = Inference(model, x, lengths=lengths)
    if not inference.batch.lengths.any():
        raise ValueError("x: expected at least one step, got none")
    _, dx = inference.gradient(inference.x, None)
    gradient = _relative(norms_back_in_time(inference, dx))
    perturbation = _relative(_changes(inference, read_generator("rng", rng)))
    by_gradient, by_perturbation = (
        int(np.flatnonzero(curve >= threshold).max(initial=0)) for curve in (gradient, perturbation)
    )
    return EffectiveMemory(by_gradient, by_perturbation, gradient, perturbation, threshold)


def norms_back_in_time(inference: Inference, dx: np.ndarray) -> np.ndarray:
    """The norm of dx over rows and features, by the steps back from each row's last one."""
    rows = inference.batch.back_in_time(dx)[:, : inference.batch.lengths.max()]
    return np.asarray(np.linalg.norm(rows.astype(np.float64), axis=(0, 2)))


def _changes(inference: Inference, rng: "np.random.Generator") -> np.ndarray:
    """The norm of the last output's change, by the steps back at which x is changed."""
    batch, lengths = inference.batch, inference.batch.lengths
    rows = batch.by_row(inference.x)
    B, T, features = rows.shape
    scale = rows[within(lengths, T)].std(dtype=np.float64)
    noise = (rng.standard_normal((B, features)) * (scale or 1)).astype(rows.dtype)

    def last_outputs(rows: np.ndarray) -> Any:
        """[n, B, units], of n copies [n, B, T, features]."""
        copies = Batch(True, batch.batch_first, np.tile(lengths, len(rows)))
        x = rows.reshape(-1, T, features)
        options = {"lengths": copies.lengths} if "lengths" in inference.options else {}
        y = inference(x if batch.batch_first else x.swapaxes(0, 1), **options)
        outputs, is_last = copies.last(y, y.ndim == 3)
        return outputs[is_last].reshape(len(rows), -1, y.shape[-1]).astype(np.float64)

    unchanged = last_outputs(rows[None])
    at_a_time = max(1, AT_A_TIME // rows.size)
    curve = np.empty(lengths.max())
    for begin in range(0, len(curve), at_a_time):
        back = np.arange(begin, min(begin + at_a_time, len(curve)))
        copies = np.repeat(rows[None], len(back), axis=0)
        at = lengths - 1 - back[:, None]  # [n, B]: the step that is changed, if it is not below 0
        copy, row = (at >= 0).nonzero()
        copies[copy, row, at[copy, row]] += noise[row]
        curve[back] = np.linalg.norm(last_outputs(copies) - unchanged, axis=(1, 2))
    return curve


def _relative(curve: np.ndarray) -> np.ndarray:
    largest = curve.max()
    if not np.isfinite(largest):
        raise ValueError("x: expected finite outputs and gradients, got NaN or infinity")
    return np.asarray(curve / (largest or 1))
