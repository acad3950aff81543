"""RNNoise's network: three GRUs and three dense layers.

Its layers are those of Valin 2018, "A hybrid DSP/deep learning approach to real-time full-band
speech enhancement", fig. 3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import read_floats
from fastlstm.engine.reading.streams import check_together
from fastlstm.module import Gradients, Module, Tape, check_tape

INPUTS = {
    "input_dense": ("x",),
    "vad_gru": ("input_dense",),
    "noise_gru": ("input_dense", "vad_gru", "x"),
    "denoise_gru": ("vad_gru", "noise_gru", "x"),
    "denoise_output": ("denoise_gru",),
    "vad_output": ("vad_gru",),
}
NAMES = tuple(INPUTS)  # in the order of files


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

    def step(
        self, x: Any, state: Any, rows: Any = None, out: None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute one frame of some rows, as inference, and update their state in place.

        Parameters
        ----------
        x : array (n, F)
        state : tuple of three arrays
            From `zero_state`.
        rows : array (n,) of ints, optional
            The row of the state for each row of x; all rows in order if None.
        out : None
            The result is two arrays, so there is no array for it.

        Returns
        -------
        gains, vad : arrays (n, bands) and (n, 1)

        Raises
        ------
        ValueError
            A shape does not fit. The state is then unchanged.
        """
        if out is not None:
            raise ValueError("out: the result is a tuple of arrays, so expected None")
        grus = (getattr(self, name) for name in NAMES if name.endswith("_gru"))
        for gru, own in zip(grus, _read_tuple("state", state, 3), strict=True):
            gru._check_streams(own)
        check_together(state)

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
