"""Checks of arguments. Each error names the argument, the expected value and the given one."""

import inspect
import math
import operator
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

LARGEST = 2**31 - 1  # largest size: products of larger ones could overflow before memory runs out


def warn_user(message: str, *others: str) -> None:
    """Warn at the user's line: the first that is not of this package, or in other folders."""
    package = tuple(folder + os.sep for folder in (os.path.dirname(__file__), *others))
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def brief(value: Any) -> str:
    """The first 60 characters of a value's repr, in one line, for messages."""
    return " ".join(repr(value)[:200].split())[:60]


def quiet() -> np.errstate:
    """A context without warnings of infinities and NaNs, as in the kernels."""
    return np.errstate(all="ignore")


def missing(what: str, package: str, extra: str | None = None) -> ImportError:
    """The error of what needs a package that cannot be imported; `extra` is ours that brings it."""
    install = package if extra is None else f'"fastlstm[{extra}]"'
    return ImportError(f"{what} needs {package}: pip install {install}")


def import_pyplot() -> Any:
    """Return matplotlib.pyplot, or raise ImportError that says how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise missing("a plot", "matplotlib", "plot") from error
    return pyplot


@contextmanager
def memory_for(name: str, *shapes: tuple[int, ...]) -> Iterator[None]:
    """Name the argument and the sizes in the MemoryError of new arrays of these shapes."""
    try:
        if sum(map(math.prod, shapes)) >= 2**60:  # NumPy would raise ValueError
            raise MemoryError
        yield
    except MemoryError as error:
        raise no_memory_for(name, *shapes) from error


def no_memory_for(name: str, *shapes: tuple[int, ...]) -> MemoryError:
    """The error of `memory_for`, which takes longer than a `try` where there is memory."""
    numbers, largest = sum(map(math.prod, shapes)), max(shapes, key=math.prod)
    return MemoryError(
        f"{name}: expected memory for {numbers} numbers, got none; the largest array has "
        f"shape {largest}"
    )


def read_plain(name: str, value: Any) -> np.ndarray:
    """Return `value` as an array of any dtype."""
    check_unmasked(name, value)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got a ragged sequence ({error})") from None
    except (TypeError, RuntimeError) as error:  # a torch tensor that requires grad
        raise TypeError(
            f"{name}: expected an array, got {type(value).__name__} ({error})"
        ) from None


def take_array(name: str, value: Any) -> Any:
    """Return a torch tensor, or an array of `ml_dtypes`, as an array of NumPy's own dtypes.

    A tensor may require grad. bfloat16 and its like become float32. Other values stay as they are.
    """
    if all(hasattr(value, method) for method in ("detach", "cpu", "numpy")):
        try:
            value = value.detach().cpu()
            if "float8" in str(value.dtype) or "bfloat16" in str(value.dtype):
                value = value.float()
            return value.numpy()
        except Exception as error:
            raise TypeError(
                f"{name}: expected an array, got a tensor without one ({error})"
            ) from error
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "V" and "float" in dtype.name:
        return np.asarray(value).astype(np.float32)
    return value


def check_unmasked(name: str, value: Any) -> None:
    """Raise TypeError if `value`, or an array in a list of them, is a masked array."""
    if _is_masked(value):
        raise TypeError(f"{name}: expected a plain array, got a masked one; use lengths or a mask")


def _is_masked(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def read_array(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """Return `value` as an array of `dtype`; only real and integer kinds are cast."""
    if type(value) is np.ndarray and value.dtype == dtype:
        return value
    array = read_numbers(name, value)
    with quiet(), memory_for(name, array.shape):
        cast = array.astype(dtype, copy=False)
    if array.dtype.itemsize > dtype.itemsize and np.isinf(cast).any():
        beyond = np.isinf(cast) & np.isfinite(array)
        if beyond.any():
            raise ValueError(
                f"{name}: expected values within {dtype}'s range, got {array[beyond][0]!s}"
            )
    return cast


def read_numbers(name: str, value: Any) -> np.ndarray:
    """Return `value` as an array of its own dtype, which must be of a real or integer kind."""
    array = read_plain(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real or integer numbers, got dtype {array.dtype}")
    return array


def read_array_of(name: str, value: Any, *dtypes: np.dtype) -> np.ndarray:
    """Return `value` as an array, which must already have one of `dtypes`."""
    array = read_plain(name, value)
    if array.dtype not in dtypes:
        wanted = " or ".join(map(str, dtypes))
        raise TypeError(f"{name}: expected dtype {wanted}, got {array.dtype}")
    return array


def read_floats(name: str, value: Any) -> np.ndarray:
    """Return `value` as a float32 array if it is one, and as a float64 array otherwise."""
    array = read_plain(name, value)
    return read_array(
        name, array, np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
    )


def read_integers(name: str, value: Any) -> np.ndarray:
    """Return `value` as an intp array of indices or counts; only integer dtypes are cast."""
    array = read_plain(name, value)
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.intp).max:
        raise ValueError(f"{name}: expected integers of at most 63 bits, got {array.max()}")
    # longlong equals intp, but compiled kernels tell them apart.
    if array.dtype.char == np.dtype(np.intp).char:
        return array.astype(np.intp, copy=False)
    with memory_for(name, array.shape):
        return array.astype(np.intp)


def read_bools(name: str, value: Any) -> np.ndarray:
    """Return `value`, bools or numbers that are 0 or 1, as an array of bools."""
    array = read_plain(name, value)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected bools, or numbers 0 and 1, got dtype {array.dtype}")
    ones = array == 1
    others = array[~ones & (array != 0)]
    if others.size:
        raise ValueError(f"{name}: expected only 0 and 1, got {others[0]}")
    return np.asarray(ones)


def check_shape(name: str, array: np.ndarray, *shape: int) -> None:
    """Raise ValueError unless the array has this shape."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def read_size(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as an int from `minimum` to LARGEST."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a whole number, got {brief(value)}")
    if not minimum <= number <= LARGEST:
        raise ValueError(f"{name}: expected {minimum} to {LARGEST}, got {number}")
    return number


def read_index(name: str, value: Any, count: int) -> int:
    """Return `value`, from -count to count - 1, as an index from 0."""
    index = read_size(name, value, -LARGEST)
    if not -count <= index < count:
        raise ValueError(f"{name}: expected {-count} to {count - 1}, got {index}")
    return index % count


def read_flag(name: str, value: Any) -> bool:
    """Return `value`, which must be True or False, as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {brief(value)}")
    return bool(value)


def read_number(
    name: str,
    value: Any,
    low: float,
    high: float,
    *,
    open_below: bool = False,
    open_above: bool = False,
) -> float:
    """Return `value` as a finite float from `low` to `high`, each of which may be left out."""
    array = None if isinstance(value, (list, tuple)) else read_plain(name, value)
    if array is None or array.ndim or array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected a number, got {brief(value)}")
    number = float(array)
    left_out = (open_below and number == low) or (open_above and number == high)
    if left_out or not low <= number <= high or not np.isfinite(number):
        kind = "a finite number" if np.isinf(high) and not open_above else "a number"
        bounds = f"{'(' if open_below else '['}{low}, {high}{')' if open_above else ']'}"
        raise ValueError(f"{name}: expected {kind} in {bounds}, got {brief(value)}")
    return number


def read_dtype(name: str, value: Any) -> np.dtype:
    """Return `value` as a dtype, which must be float32 or float64."""
    try:
        dtype: np.dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {brief(value)}") from None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)) or value is None:
        raise ValueError(f"{name}: expected float32 or float64, got {brief(value)}")
    return dtype


def read_generator(name: str, value: Any) -> "np.random.Generator":
    """Return a Generator for `value`: a seed, None for a random seed, or a Generator itself."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: expected None, a seed or a numpy Generator, got {brief(value)}"
        ) from None


def takes(function: Any, name: str) -> bool:
    """Whether a function has an argument of this name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
