"""The engine that every recurrent layer shares: stack, directions, dropout, threads, tape."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastlstm import threads as pool
from fastlstm.checks import flag, float_dtype, generator, real_number, whole_number
from fastlstm.kernels import kernels
from fastlstm.layers import short
from fastlstm.layers.gradients import RecurrentSum, backward_layer
from fastlstm.layers.initial import initial
from fastlstm.layers.inputs import Plan, make_plan
from fastlstm.layers.module import Gradients, Module, Parameters
from fastlstm.layers.shares import Sharing, shares, worthwhile
from fastlstm.layers.state import Part, StateLayout
from fastlstm.layers.tape import LayerTape, RecurrentTape, check_tape


class Recurrent(Module):
    """A stack of recurrent layers in one or two directions; a subclass brings the cell."""

    is_recurrent = True
    GATES: int
    STATE: tuple[str, ...]  # the names of the state's parts

    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: Any,
        rng: Any,
        learn_initial_state: bool = False,
    ):
        self.input_size = whole_number("input_size", input_size)
        self.num_layers = whole_number("num_layers", num_layers)
        self._read_widths(hidden_size)
        self.bias = flag("bias", bias)
        self.batch_first = flag("batch_first", batch_first)
        self.dropout = real_number("dropout", dropout, 0, 1)
        self.bidirectional = flag("bidirectional", bidirectional)
        self.dtype = float_dtype("dtype", dtype)
        self.learn_initial_state = flag("learn_initial_state", learn_initial_state)
        self._rng = generator("rng", rng)
        self._directions = 2 if self.bidirectional else 1
        if self.dropout and self.num_layers == 1:
            raise ValueError("dropout: acts between layers, so it needs num_layers >= 2, got 1")

    def _begin(self, init: str = "torch", *biases: float | None) -> None:
        """Set the parameters to what they are before training."""
        shapes = self._shapes()
        arrays = initial(shapes, self.GATES, init, self._rng, self.dtype, *biases)
        self._replace_parameters(arrays)

    # The cell, which a subclass provides.

    def _sizes(self, layer: int) -> tuple[int, ...]:
        """Sizes of the state's parts in one layer; the first is what a direction gives, P."""
        return (self._widths[layer],)

    @cached_property
    def _output_size(self) -> int:
        """Features that one direction of the last layer gives."""
        return self._sizes(self.num_layers - 1)[0]

    @cached_property
    def _layout(self) -> StateLayout:
        by_layer = (self._sizes(layer) for layer in range(self.num_layers))
        return StateLayout(self.STATE, tuple(zip(*by_layer, strict=True)), self._directions)

    def _keep(self, layer: int, T: int, B: int) -> dict[str, np.ndarray]:
        """Arrays for what the cell's backward needs; "gates" [T, B, GATES, H] among them.

        What training draws at random is drawn here, in the order of layers and directions.
        After backward, "gates" holds the gradient of W x.
        """
        raise NotImplementedError

    def _forward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        """f(x, state, y, final_state, walk, kept[, threads]), the last where it splits units."""
        raise NotImplementedError

    def _backward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        """f(kept, state, dy, dstate, walk[, threads]): in `kept`, gates become their gradients."""
        raise NotImplementedError

    def _recurrent_sums(self, kept: dict[str, np.ndarray]) -> Iterator[RecurrentSum]:
        """What weight_hh's gradient sums, for all its rows."""
        yield RecurrentSum(slice(None))

    def _more_gradients(
        self, kept: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, dz [T, B, M], source [T, B, N]) for weights beyond weight_ih and weight_hh."""
        return iter(())

    def _vector_gradients(self, kept: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, gradient of each row [B, N]) for vectors: those beyond the biases, and these too
        where theirs is not the sum of the gates' gradients."""
        return iter(())

    @cached_property
    def _splits_units(self) -> bool:
        """Whether the kernels take a team of threads."""
        return False

    def _call_kernel(
        self, k: Any, parameters: Parameters, axes: tuple[int, int], sharing: Sharing
    ) -> Callable[..., Any] | None:
        """f(x, state, keep): see layers/short.py; None where the cell has no short cut."""
        return None

    def _call_back_kernel(self, k: Any, parameters: Parameters) -> Callable[..., Any]:
        """f(batch_first, sharing, x, state, y, *kept, dy, dstate)."""
        raise NotImplementedError

    # Names.

    def _suffix(self, layer: int, direction: int) -> str:
        return f"_l{layer}{'_reverse' if direction else ''}"

    def _inputs(self) -> Iterator[tuple[int, str]]:
        """(features of its input, suffix of its parameters' names) for each layer and direction."""
        size = self.input_size
        for layer in range(self.num_layers):
            for direction in range(self._directions):
                yield size, self._suffix(layer, direction)
            size = self._directions * self._sizes(layer)[0]

    def _shapes(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """(kind, suffix, shape) of every parameter, in torch's order."""
        for at, (features, suffix) in enumerate(self._inputs()):
            H = self._widths[at // self._directions]
            yield "weight_ih", suffix, (self.GATES * H, features)
            yield "weight_hh", suffix, (self.GATES * H, H)
            if self.bias:
                yield "bias_ih", suffix, (self.GATES * H,)
                yield "bias_hh", suffix, (self.GATES * H,)
            if self.learn_initial_state:
                yield "initial_h", suffix, (H,)

    def _read_widths(self, hidden_size: Any) -> None:
        """One width for all layers, or a list of one for each."""
        self.hidden_size: Any
        self._widths: list[int]
        if not isinstance(hidden_size, (list, tuple)):
            self.hidden_size = whole_number("hidden_size", hidden_size)
            self._widths = [self.hidden_size] * self.num_layers
            return
        self.hidden_size = list(hidden_size)
        self._widths = [whole_number("hidden_size", width) for width in hidden_size]
        if self.num_layers not in (1, len(self._widths)):
            raise ValueError(
                f"num_layers: hidden_size gives {len(self._widths)} layers, got {self.num_layers}"
            )
        self.num_layers = len(self._widths)
        if not self._widths:
            raise ValueError("hidden_size: expected at least one layer, got none")

    def _describe(self) -> str:
        """The arguments, those at their default left out."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("num_layers", len(self._widths) if isinstance(self.hidden_size, list) else 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("learn_initial_state", False),
            ("dtype", np.dtype(np.float32)),
        ):
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        return text

    # Calls.

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        out: np.ndarray | None = None,
        threads: int | None = None,
    ) -> tuple[Any, Any]:
        if lengths is None and resets is None and out is None and threads is None:
            result = short.call(self, x, state, (1, 0) if self.batch_first else (0, 1))
            if result is not None:
                return result[:2]
        parameters = self._parameters
        plan = self._plan(x, state, lengths, resets, parameters)
        threads = self._threads(threads)
        features = self._directions * self._output_size
        y = plan.empty(features) if out is None else plan.room_in(out, features)
        final = self._run(plan, parameters, kernels(self.dtype), y, threads)
        if out is not None and y is not out:
            out[...] = y
            y = out
        return plan.give_back(y), plan.give_state_back(final)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        threads: int | None = None,
    ) -> tuple[tuple[Any, Any], RecurrentTape]:
        """Compute as in inference (with dropout), keeping what `backward` needs.

        Returns ``(y, state), tape``. Until `backward` has run, x and state must not be changed; y
        is read-only, since the tape holds it.
        """
        if lengths is None and resets is None and threads is None:
            result = short.forward(self, x, state)
            if result is not None:
                return result
        parameters = self._parameters
        plan = self._plan(x, state, lengths, resets, parameters)
        threads = self._threads(threads)
        learns_state = self.learn_initial_state and state is None
        tape = RecurrentTape(self, parameters, kernels(self.dtype), plan, learns_state)
        y = plan.empty(self._directions * self._output_size)
        final = self._run(plan, tape.parameters, tape.kernels, y, threads, tape.layers)
        y.flags.writeable = False
        return (plan.give_back(y), plan.give_state_back(final)), tape

    def backward(
        self, tape: RecurrentTape, dy: Any = None, dstate: Any = None, *, threads: int | None = None
    ) -> Gradients:
        """Gradients of x, the initial state and every parameter.

        Parameters
        ----------
        tape : from `forward`; it serves one backward, since gates become gradients in place
        dy : gradient of the output, in its shape (a list for a list); None for zeros
        dstate : gradient of the final state, in its shape; None for zeros
        """
        tape = check_tape(tape, RecurrentTape, self)
        if tape.is_short and threads is None:
            grads = short.backward(self, tape, dy, dstate)
            if grads is not None:
                return grads
        plan, threads = tape.plan, self._threads(threads)
        dy = plan.read_gradient("dy", dy, self._directions * self._output_size)
        dstate = plan.read_state_gradient("dstate", dstate)
        tape.used = True
        params: dict[str, np.ndarray] = {}
        dx = plan.empty(self.input_size)
        for layer in reversed(range(self.num_layers)):
            below = plan.to_steps(dx) if layer == 0 else np.empty_like(tape.layers[layer].x)
            backward_layer(self, tape, layer, dy, dstate, below, params, threads)
            dy = below
        tape.layers.clear()
        if self.learn_initial_state:
            for name, part, at in self._initial_states():
                gradient = dstate[part][at].sum(axis=0)
                params[name] = gradient if tape.learns_state else np.zeros_like(gradient)
        params = {name: params[name] for name in tape.parameters}
        return Gradients(plan.give_back(dx), plan.give_state_back(dstate), params)

    # The work.

    def _plan(self, x: Any, state: Any, lengths: Any, resets: Any, parameters: Parameters) -> Plan:
        plan = make_plan(
            x,
            state,
            lengths,
            resets,
            features=self.input_size,
            batch_first=self.batch_first,
            layout=self._layout,
            dtype=self.dtype,
        )
        if state is None and self.learn_initial_state:
            for name, part, at in self._initial_states():
                plan.state[part][at][...] = parameters[name]
        return plan

    def _initial_states(self) -> Iterator[tuple[str, int, int]]:
        """(parameter's name, part of the state, place in it) of all learned initial states."""
        for at in range(self.num_layers * self._directions):
            suffix = self._suffix(*divmod(at, self._directions))
            for part, name in enumerate(self.STATE):
                yield f"initial_{name}{suffix}", part, at

    def _run(
        self,
        plan: Plan,
        parameters: Parameters,
        k: Any,
        y: np.ndarray,
        threads: int,
        tapes: list[LayerTape] | None = None,
    ) -> tuple[Part, ...]:
        """Fill `y` (in the caller's layout) and return the final state."""
        T, B, _ = plan.x.shape
        final = plan.layout.empty(B, self.dtype)
        x = plan.x
        for layer in range(self.num_layers):
            if layer == self.num_layers - 1:
                result = plan.to_steps(y)
            else:
                features = self._directions * self._sizes(layer)[0]
                result = np.empty((T, B, features), self.dtype)
            kept: list[dict[str, np.ndarray]] = [{} for _ in range(self._directions)]
            if tapes is not None:
                x, mask = self._drop(x) if layer else (x, None)
                kept = [self._keep(layer, T, B) for _ in kept]
                tapes.append(LayerTape(x, mask, result, kept))
            busy, team = worthwhile(self, threads, x, layer)
            tasks: list[Callable[[], None]] = []
            for share in shares(self, plan, layer, busy):
                kernel = self._forward_kernel(k, parameters, share.suffix)
                state = tuple(part[share.at] for part in plan.state)
                final_state = tuple(part[share.at] for part in final)
                out = result[:, :, share.columns]
                keep = kept[share.direction]
                tasks.append(partial(kernel, x, state, out, final_state, share.walk, keep, *team))
            pool.run(tasks, busy)
            x = result
        return final

    def _is_reverse(self, direction: int) -> bool:
        return bool(direction)

    def _drop(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Inverted dropout between layers (Srivastava et al. 2014): x and its factors."""
        if not self.dropout:
            return x, None
        mask = (self._rng.random(x.shape, np.float32) >= self.dropout).astype(x.dtype)
        if self.dropout < 1:
            mask /= 1 - self.dropout
        return x * mask, mask

    def _threads(self, threads: int | None) -> int:
        return pool.get_num_threads() if threads is None else whole_number("threads", threads)
