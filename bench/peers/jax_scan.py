"""JAX: the equations in `jax.numpy`, the steps in `lax.scan`, all of it under `jit`.

Weights are kept transposed, and the input's product is outside of the scan: of the ways to write
it, the fastest measured.
"""

import numpy as np

from bench.peers.base import Peer, Training, refuse
from bench.problem import Problem


class Jax(Peer):
    """A function of (weights, x, state), compiled at the first call, before any is timed.

    Without a state it makes the zeros itself.
    """

    name = "jax"
    requires = ("jax", "jaxlib")
    trains = True

    def __init__(self, problem: Problem, threads: int):
        import jax

        refuse(problem, "lengths", "resets")
        jax.config.update("jax_enable_x64", True)  # lets float64 stay; float32 stays float32
        case = problem.case

        def forward(weights, x, state):
            if state is None:
                shape = case.layers * (1 + case.bidirectional), case.B
                P = case.proj_size or case.H
                state = tuple(jax.numpy.zeros((*shape, size), case.dtype) for size in (P, case.H))
            return _stack(weights, x, *state, case.layers, case.bidirectional)

        def gradients(weights, x, state, dy):
            _, pull = jax.vjp(lambda weights, x: forward(weights, x, state)[0], weights, x)
            return pull(dy)

        self._forward, self._gradients = jax.jit(forward), jax.jit(gradients)
        parameters = problem.layer.state_dict()
        weights = {name: jax.numpy.asarray(array.T) for name, array in parameters.items()}
        arrays = problem.x, problem.state, problem.dy
        x, state, self._dy = jax.tree.map(jax.numpy.asarray, arrays)
        self._arguments = weights, x, state

    def infer(self) -> np.ndarray:
        return np.asarray(self._forward(*self._arguments)[0])

    def train(self) -> Training:
        weights, dx = self._gradients(*self._arguments, self._dy)
        return np.asarray(dx), {name: np.asarray(array).T for name, array in weights.items()}


def _stack(weights, x, h0, c0, layers, bidirectional):
    """Output [T, B, directions * P] and final state of x [T, B, I]."""
    import jax.numpy as jnp

    suffixes = ["", "_reverse"] if bidirectional else [""]
    final = []
    for layer in range(layers):
        results = []
        for direction, suffix in enumerate(suffixes):
            at = layer * len(suffixes) + direction
            state, y = _direction(weights, f"_l{layer}{suffix}", x, (h0[at], c0[at]), direction)
            results.append(y)
            final.append(state)
        x = jnp.concatenate(results, axis=-1) if bidirectional else results[0]
    return x, final


def _direction(weights, suffix, x, state, reverse):
    """Final state and output [T, B, P] of one layer in one direction; the weights transposed."""
    import jax.numpy as jnp
    from jax import lax
    from jax.nn import sigmoid

    bias = weights["bias_ih" + suffix] + weights["bias_hh" + suffix]
    recurrent, projection = weights["weight_hh" + suffix], weights.get("weight_hr" + suffix)

    def step(state, gates):
        h, c = state
        i, f, g, o = jnp.split(gates + h @ recurrent, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        h = h if projection is None else h @ projection
        return (h, c), h

    return lax.scan(step, state, x @ weights["weight_ih" + suffix] + bias, reverse=bool(reverse))
