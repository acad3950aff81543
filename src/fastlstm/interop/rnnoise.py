"""RNNoise: how loud each band of noisy speech is to be, and whether anyone speaks.

Files are ``.rnnn`` of rnnoise-nu, which ffmpeg's ``arnndn`` reads too: a line with the version,
then integers, which are 256 times the values. The layers are those of Valin 2018, "A hybrid
DSP/deep learning approach to real-time full-band speech enhancement", fig. 3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_floats, read_plain
from fastlstm.interop.reading import Hints, reading
from fastlstm.interop.recurrent import ZRH, make, make_linear, reorder
from fastlstm.layers.activation import Activation
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Gradients, Module, Tape, check_tape
from fastlstm.safetensors import Path

HEADER = re.compile(rb"rnnoise-nu model file version 1\s")
WIDEST, LONGEST = 128, 1 << 22  # neurons of a layer, as in rnnoise-nu, and bytes of a file
SCALE = 256  # of the files' integers
INPUTS = {
    "input_dense": ("x",),
    "vad_gru": ("input_dense",),
    "noise_gru": ("input_dense", "vad_gru", "x"),
    "denoise_gru": ("vad_gru", "noise_gru", "x"),
    "denoise_output": ("denoise_gru",),
    "vad_output": ("vad_gru",),
}
NAMES = tuple(INPUTS)  # in the order of files
FUNCTIONS = "tanh", "sigmoid", "relu"  # by their number in files
USUAL = dict(zip(NAMES, ("tanh", "tanh", "relu", "tanh", "sigmoid", "sigmoid"), strict=True))


@dataclass(slots=True, eq=False)
class RNNoiseTape(Tape):
    tapes: dict[str, Any]


class RNNoise(Module):
    """The network of RNNoise: gains of bands, and voice activity, from features of frames.

    With d = input_dense(x), v = vad_gru(d) and n = noise_gru([d, v, x]), the gains are
    denoise_output(denoise_gru([v, n, x])), and the voice activity is vad_output(v).

    ``(gains, vad), state = model(x, state)``: the state is that of the three GRUs.

    Parameters
    ----------
    input_dense : Module
        Linear, with an activation.
    vad_gru, noise_gru, denoise_gru : GRU
    denoise_output, vad_output : Module
        Linear, with an activation.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> def dense(inputs, outputs, activation):
    ...     return fl.Sequential(fl.Linear(inputs, outputs, rng=0), fl.Activation(activation))
    >>> model = fl.interop.rnnoise.RNNoise(
    ...     dense(9, 4, "tanh"), fl.GRU(4, 3), fl.GRU(16, 5), fl.GRU(17, 6),
    ...     dense(6, 7, "sigmoid"), dense(3, 1, "sigmoid"),
    ... )
    >>> (gains, vad), state = model(np.ones((20, 2, 9)))  # frames, streams, features
    >>> gains.shape, vad.shape
    ((20, 2, 7), (20, 2, 1))
    """

    is_recurrent = True

    def __init__(
        self,
        input_dense: Module,
        vad_gru: Module,
        noise_gru: Module,
        denoise_gru: Module,
        denoise_output: Module,
        vad_output: Module,
    ):
        given = (input_dense, vad_gru, noise_gru, denoise_gru, denoise_output, vad_output)
        for name, module in zip(NAMES, given, strict=True):
            if not isinstance(module, Module) or module.is_recurrent != name.endswith("_gru"):
                kind = "a GRU" if name.endswith("_gru") else "a module of steps"
                raise TypeError(f"{name}: expected {kind}, got {module!r:.60}")
            setattr(self, name, module)

    def __call__(
        self, x: Any, state: Any = None, *, resets: Any = None, threads: int | None = None
    ) -> Any:
        """Return gains, voice activity and the state, as inference.

        Parameters
        ----------
        x : array (T, B, F), or (T, F)
            Features of frames; with GRUs of ``batch_first=True``, (B, T, F).
        state : tuple of three arrays (1, B, H), or None for zeros
        resets, threads
            As GRUs take them.

        Returns
        -------
        (gains, vad) : arrays (T, B, bands) and (T, B, 1)
        state : tuple of three arrays
        """

        options = {"resets": resets, "threads": threads}

        def run(name: str, x: np.ndarray, *state: Any) -> Any:
            module = getattr(self, name)
            return module(x, *state, **options) if state else module(x)

        return self._through(run, x, state)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        resets: Any = None,
        recompute: int | str | None = None,
        threads: int | None = None,
    ) -> tuple[Any, RNNoiseTape]:
        """Return what a call returns, and a tape.

        Parameters
        ----------
        x, state, resets, threads
            As in a call.
        recompute : int or "sqrt", optional
            As GRUs take it.

        Returns
        -------
        ((gains, vad), state)
        tape : RNNoiseTape
            The argument of one `backward`.
        """
        tapes = {}
        options = {"resets": resets, "recompute": recompute, "threads": threads}

        def run(name: str, x: np.ndarray, *state: Any) -> Any:
            module = getattr(self, name)
            result, tapes[name] = (
                module.forward(x, *state, **options) if state else module.forward(x)
            )
            return result

        return self._through(run, x, state), RNNoiseTape(self, tapes)

    def backward(
        self, tape: Any, dresult: Any, dstate: Any = None, *, threads: int | None = None
    ) -> Gradients:
        """Return the gradients of x, the state and all parameters.

        Parameters
        ----------
        tape : RNNoiseTape
            From `forward`.
        dresult : (dgains, dvad)
            Gradients of the gains and of the voice activity.
        dstate : tuple of three, or None
            Gradient of the final state.
        threads : int, optional
            As GRUs take it.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError
            The tape is from another module or was used, or a shape does not fit.
        """
        tape = check_tape(tape, RNNoiseTape, self)
        dgains, dvad = _read_tuple("dresult", dresult, 2)
        dv, dn, dg = (None,) * 3 if dstate is None else _read_tuple("dstate", dstate, 3)
        tape.claim()
        parts: dict[str, Gradients] = {}

        def back(name: str, dy: Any, *state: Any) -> np.ndarray:
            more = {"threads": threads} if state else {}
            parts[name] = getattr(self, name).backward(tape.tapes[name], dy, *state, **more)
            return np.asarray(parts[name].x)

        V, N = (getattr(self, name).hidden_size for name in ("vad_gru", "noise_gru"))
        to_denoise = back("denoise_gru", back("denoise_output", dgains), dg)
        of_vad, of_noise, of_x = np.split(to_denoise, [V, V + N], axis=-1)
        to_noise = back("noise_gru", of_noise, dn)
        I = to_noise.shape[-1] - V - of_x.shape[-1]
        of_input, also_of_vad, also_of_x = np.split(to_noise, [I, I + V], axis=-1)
        to_vad = back("vad_gru", back("vad_output", dvad) + of_vad + also_of_vad, dv)
        dx = back("input_dense", to_vad + of_input) + of_x + also_of_x
        states = tuple(parts[name].state for name in NAMES if name.endswith("_gru"))
        return self.collect(x=dx, state=states, **parts)

    def zero_state(self, B: int) -> tuple[Any, ...]:
        """Return the state in which B rows begin, for `step`: that of each GRU."""
        return tuple(getattr(self, name).zero_state(B) for name in NAMES if name.endswith("_gru"))

    def step(self, x: Any, state: Any, rows: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute one frame of some rows, as inference, and update their state in place.

        Parameters
        ----------
        x : array (n, F)
        state : tuple of three arrays
            From `zero_state`.
        rows : array (n,) of ints, optional
            The row of the state for each row of x; all rows in order if None.

        Returns
        -------
        gains, vad : arrays (n, bands) and (n, 1)
        """

        def run(name: str, x: np.ndarray, *state: Any) -> Any:
            module = getattr(self, name)
            return (module.step(x, *state, rows), *state) if state else module(x[:, None])[:, 0]

        result: tuple[np.ndarray, np.ndarray] = self._through(run, x, state)[0]
        return result

    def _through(self, run: Any, x: Any, state: Any) -> Any:
        """The wiring of the layers, each of which `run` computes."""
        if isinstance(x, (list, tuple)):
            raise TypeError("x: expected an array; call once for each sequence of a list")
        x = read_floats("x", x)
        v, n, g = (None,) * 3 if state is None else _read_tuple("state", state, 3)
        dense = run("input_dense", x)
        x = x.astype(dense.dtype, copy=False)
        voice, v = run("vad_gru", dense, v)
        vad = run("vad_output", voice)
        noise, n = run("noise_gru", np.concatenate([dense, voice, x], axis=-1), n)
        speech, g = run("denoise_gru", np.concatenate([voice, noise, x], axis=-1), g)
        return (run("denoise_output", speech), vad), (v, n, g)


def _read_tuple(name: str, value: Any, count: int) -> Any:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise ValueError(f"{name}: expected a tuple of {count}, got {value!r:.60}")
    return value


def read(path: Path, hints: Hints) -> RNNoise:
    """Return the network of a ``.rnnn`` file."""
    with open(path, "rb") as file, reading(path, "RNNoise"):
        text = file.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise ValueError(f"expected at most {LONGEST} bytes")
        header = HEADER.match(text)
        if not header:
            raise ValueError(f"version: expected rnnoise-nu's version 1, got {text[:40]!r}")
        numbers = _read_integers(text[header.end() :])
        arrays, functions, place = {}, {}, 0

        def take(field: str, count: int) -> np.ndarray:
            nonlocal place
            start, place = place, place + count
            if place > len(numbers):
                raise ValueError(
                    f"{field}: expected {count} integers, got {len(numbers) - start}, "
                    "up to the end of the file"
                )
            return numbers[start:place]

        for name in NAMES:
            I, H, function = map(int, take(f"{name}: sizes", 3))
            if not 1 <= min(I, H) <= max(I, H) <= WIDEST:
                raise ValueError(f"{name}: expected sizes from 1 to {WIDEST}, got {I} and {H}")
            if not 0 <= function < len(FUNCTIONS):
                raise ValueError(f"{name}: expected an activation 0 to 2, got {function}")
            functions[name] = FUNCTIONS[function]
            columns = 3 * H if name.endswith("_gru") else H
            rows = {"weights": I, "recurrent": H} if columns > H else {"weights": I}
            for part, size in rows.items():
                array = take(f"{name}.{part}", size * columns)
                arrays[f"{name}.{part}"] = array.reshape(size, columns)
            arrays[f"{name}.bias"] = take(f"{name}.bias", columns)
        if place != len(numbers):
            raise ValueError(f"expected no more than {place} integers, got {len(numbers)}")
        batch_first = hints.get("batch_first", False)
        return from_arrays(arrays, activations=functions, batch_first=batch_first)


def _read_integers(text: bytes) -> np.ndarray:
    wrong = re.search(rb"[^-\d\s]|[^\s]-|-(?!\d)|\d{5}", text)
    if wrong:
        around = text[max(0, wrong.start() - 8) : wrong.end() + 8]
        raise ValueError(f"expected integers of 8 bits, got {around!r}")
    # Without weights, the text is blank, which fromstring takes for one number.
    return np.fromstring(text, np.int16, sep=" ") if text.strip() else np.empty(0, np.int16)


def from_arrays(
    mapping: Mapping[str, Any],
    *,
    activations: Mapping[str, str] | None = None,
    batch_first: bool = False,
) -> RNNoise:
    """Return the network of the integers of a file, by layer and part.

    Parameters
    ----------
    mapping : mapping of str to array of integers
        "input_dense.weights" (I, H) and "input_dense.bias" (H,), as well for denoise_output and
        vad_output; "vad_gru.weights" (I, 3H), "vad_gru.recurrent" (H, 3H), "vad_gru.bias" (3H,),
        gates z, r, h, as well for noise_gru and denoise_gru. Values are these over 256. Arrays of
        other names are not read.
    activations : mapping of str to "tanh", "sigmoid" or "relu", optional
        Those of layers that differ from RNNoise's own: "relu" in noise_gru, "sigmoid" in outputs,
        and "tanh" elsewhere.
    batch_first : bool
        Whether x is (B, T, F) instead of (T, B, F).

    Returns
    -------
    RNNoise

    Raises
    ------
    ValueError
        An array is missing, or their shapes do not fit each other.
    TypeError
        An array has no integers.
    """
    functions = {**USUAL, **(activations or {})}
    if unknown := sorted(functions.keys() - USUAL.keys()):
        raise ValueError(f"activations: expected names of layers, got {unknown!r:.80}")
    parts: dict[str, Module] = {}
    widths: dict[str, int] = {}
    for name in NAMES:
        W, bias = (_read_array(f"{name}.{part}", mapping) for part in ("weights", "bias"))
        is_gru = name.endswith("_gru")
        H, rest = divmod(W.shape[1], 3) if is_gru else (W.shape[1], 0)
        if rest or not W.size:
            raise ValueError(f"{name}.weights: expected 3 blocks of columns, got shape {W.shape}")
        widths.setdefault("x", len(W))
        inputs = sum(widths[part] for part in INPUTS[name])
        check_shape(f"{name}.weights", W, inputs, 1 if name == "vad_output" else W.shape[1])
        check_shape(f"{name}.bias", bias, W.shape[1])
        widths[name], function = H, functions[name]
        if function not in FUNCTIONS:
            raise ValueError(f"activations: expected one of {FUNCTIONS}, got {function!r:.60}")
        if is_gru:
            R = _read_array(f"{name}.recurrent", mapping)
            check_shape(f"{name}.recurrent", R, H, 3 * H)
            arrays = {"weight_ih": W.T, "weight_hh": R.T, "bias_ih": bias}
            parts[name] = make(
                "GRU",
                [[{part: reorder(array, ZRH) for part, array in arrays.items()}]],
                linear_before_reset=False,
                activations=("sigmoid", function),
                batch_first=batch_first,
            )
        else:
            parts[name] = Sequential(make_linear(W.T, bias), Activation(function))
    return RNNoise(**parts)


def _read_array(name: str, mapping: Mapping[str, Any]) -> np.ndarray:
    if name not in mapping:
        raise ValueError(f"{name}: expected an array, got none")
    array = read_plain(name, mapping[name])
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, as files have them, got dtype {array.dtype}")
    if array.ndim != (1 if name.endswith("bias") else 2):
        raise ValueError(f"{name}: expected a matrix or a vector, got shape {array.shape}")
    if array.size and not -128 <= array.min() <= array.max() <= 127:
        raise ValueError(f"{name}: expected integers from -128 to 127")
    return (array / SCALE).astype(np.float32)
