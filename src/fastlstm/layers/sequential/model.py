"""Layers one after another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.changes import CHANGES
from fastlstm.checks import read_flag, read_size
from fastlstm.engine.reading.streams import check_step_out, check_together
from fastlstm.engine.recompute import read_recompute
from fastlstm.engine.stack import Stack
from fastlstm.layers.linear import Linear
from fastlstm.layers.sequential.ragged import Ragged, read_ragged
from fastlstm.layers.sequential.row import Row
from fastlstm.module import Gradients, Tape, check_tape

OF_VALID_STEPS = "lengths", "mask", "masked_output"  # arguments, for layers that pool steps, too


@dataclass(slots=True, eq=False)
class SequentialTape(Tape):
    tapes: list[Any]  # one for every layer
    modules: tuple[Any, ...]  # the layers, with the parameters of the `forward`
    ragged: Ragged | None = None
    features: tuple[int, ...] | None = None  # of y; None if it has no steps


class Sequential(Row):
    """Layers one after another: the input of each is the output of the layer before.

    Without a recurrent layer, `model(x)` returns y and `model.forward(x)` returns (y, tape). With a
    recurrent layer, they return (y, state) and ((y, state), tape), and accept `state`, `lengths`,
    `resets`, `mask`, `masked_output` and `threads`, which concern every layer.

    A list of sequences is a ragged batch for the whole model, with or without a recurrent layer,
    and a list comes back. A `Pool` knows from the layers before it where each row and direction
    ends; its result, and that of layers after it, has one row for each sequence.

    No layer sees what a list, `lengths` and `mask` leave out, whatever it holds: layers that act on
    each step by itself (`acts_on_steps`) compute the other steps alone, and modules of one's own
    find zeros there. The result is zero there.

    `state` is a tuple with one entry for every recurrent layer, in order. Each entry is the state
    of that layer: (h, c) for an LSTM, None for zeros. For a Sequential with one LSTM it is
    ``((h, c),)``. `dstate` and `Gradients.state` have the same form.

    Another thread may set the parameters during a call, by `load_state_dict` or an optimizer. A
    call, and a `forward` with its `backward`, computes with one set of parameters throughout.

    Parameters
    ----------
    *modules : Module
        The layers. Parameters are named by position, as in torch: "0.weight_ih_l0".

    Raises
    ------
    TypeError
        A module is not a layer.
    ValueError
        A layer with parameters is given twice, so its gradients would have two names. Or a layer
        reads another number of features than the one before it gives. Or a module is a cell of one
        step (`LSTMCell`), whose result is a state. Or a recurrent layer or a `Pool` follows a
        `Pool`, which leaves no steps. Or layers differ in `batch_first`: the second would take rows
        for steps. (A module of one's own between them may swap the axes.)
    """

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
        threads: int | None = None,
    ) -> Any:
        """Apply every layer, as inference.

        Parameters
        ----------
        x : input of the first layer, or a list of sequences
            A list holds sequences (T_k, features), or (T_k,) for an `Embedding`.
        state : tuple or None
            One entry for every recurrent layer.
        lengths, resets, mask
            As recurrent layers take them: (B,) ints, and bools in the shape of x without its
            features; `resets` and `mask` are lists if x is one. All recurrent layers need the same
            `batch_first` then.
        masked_output : "zero" or "repeat"
            What y has at masked steps: zeros, or the output of the step kept before, as recurrent
            layers repeat it.
        threads : int, optional
            The most threads for each recurrent layer.

        Returns
        -------
        y, or (y, state) with a recurrent layer
            y is a list if x is one; after a `Pool` an array with a row for each sequence.

        Raises
        ------
        ValueError
            A shape or a value does not fit, `state` has another number of entries, or there is no
            layer to take `state`, `lengths`, `resets`, `mask`, `masked_output` or `threads`.

        Examples
        --------
        >>> import numpy as np, fastlstm as fl
        >>> model = fl.Sequential(fl.Embedding(9, 4, rng=0), fl.LSTM(4, 5, rng=0))
        >>> ys, state = model([[1, 2, 8], [3]])
        >>> [y.shape for y in ys]
        [(3, 5), (1, 5)]
        >>> left_padded = np.array([[1, -1], [2, -1], [8, 3]])  # (T, B)
        >>> y, state = model(left_padded, mask=left_padded >= 0)
        >>> bool((y[2, 1] == ys[1][0]).all())
        True
        """
        change, modules = self._last_bound
        if change is not CHANGES.last:
            modules = self._bind_modules()
        ragged = None
        options: dict[str, Any] = {}
        is_plain = lengths is None and resets is None and mask is None and threads is None
        is_plain = is_plain and masked_output == "zero" and not self._marks_steps
        if not is_plain or isinstance(x, (list, tuple)):
            x, options, ragged = self._read(x, lengths, resets, mask, masked_output, threads)
            modules = modules if ragged is None else ragged.around(modules)
        states = self._no_states if state is None else self._entries("state", state)
        finals: list[Any] = []
        for module in modules:
            if not module.is_recurrent:
                x = module(x)
                continue
            entry = states[len(finals)]
            # A call without keywords takes less time.
            x, final = module(x, entry, **options) if options else module(x, entry)
            finals.append(final)
        if ragged is not None and not self.pools_steps:
            x = ragged.give_back(x)
        return (x, tuple(finals)) if self.is_recurrent else x

    def zero_state(self, B: int) -> tuple[Any, ...]:
        """Return the state in which B rows begin, for `step`: that of every recurrent layer."""
        return tuple(module.zero_state(B) for module in self._modules if module.is_recurrent)

    def step(self, x: Any, state: Any, rows: Any = None, out: Any = None) -> Any:
        """Compute one step of some rows, as inference, and update their state in place.

        Parameters
        ----------
        x : input of the first layer, for n rows and one step: (n, F), or (n,) for an Embedding
        state : tuple
            From `zero_state`: one entry for every recurrent layer, updated in place at `rows`.
        rows : array (n,) of ints, optional
            The row of the state for each row of x; all rows in order if None.
        out : array, optional
            The array to store y in, of y's shape and dtype.

        Returns
        -------
        y : array (n, F)

        Raises
        ------
        ValueError, TypeError
            As `step` of a layer, with the state unchanged, or a layer pools steps. If a module of
            one's own raises an error, the recurrent layers before it have made their step.

        Examples
        --------
        >>> import numpy as np, fastlstm as fl
        >>> model = fl.Sequential(fl.LSTM(3, 5, rng=0), fl.Linear(5, 2, rng=0))
        >>> state = model.zero_state(4)
        >>> model.step(np.ones((2, 3)), state, rows=[3, 1]).shape
        (2, 2)
        """
        entries = self._entries("state", state)
        if len(entries) > 1 or self.pools_steps:
            self._check_streams(entries)
        if out is not None:
            check_step_out(out, self._output(self._before), x, entries)
        change, modules = self._last_bound
        if change is not CHANGES.last:
            modules = self._bind_modules()
        place, last = 0, modules[-1]
        for module in modules:
            if module.is_recurrent:
                x = module.step(x, entries[place], rows, out if module is last else None)
                place += 1
            elif isinstance(module, Linear) and isinstance(x, np.ndarray) and x.ndim == 2:
                # By rows: BLAS, which the reference uses, gives a row of many other bits.
                x = module(x[:, None])[:, 0]
            else:
                x = module(x)
        if out is None or x is out:
            return x
        out[...] = x
        return out

    def _check_streams(self, entries: Any) -> None:
        """Raise unless `step` can update the states of all layers."""
        for leaf in self._leaves():
            if leaf.pools_steps:
                raise ValueError(
                    f"modules: expected none that pools steps, for one step, got {leaf!r}"
                )
        entries = self._entries("state", entries)
        recurrent = [module for module in self._modules if module.is_recurrent]
        for module, entry in zip(recurrent, entries, strict=True):
            if isinstance(module, (Stack, Sequential)):
                module._check_streams(entry)
        check_together(entries)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
        recompute: int | str | None = None,
        threads: int | None = None,
    ) -> tuple[Any, SequentialTape]:
        """Run every layer's `forward`.

        Parameters
        ----------
        x, state, lengths, resets, mask, masked_output, threads
            As in a call.
        recompute : int or "sqrt", optional
            For recurrent layers: see their `forward`. Each of them saves its whole input.

        Returns
        -------
        y, or (y, state) with a recurrent layer
        tape : SequentialTape
            The argument of one `backward`.
        """
        change, modules = self._last_bound
        if change is not CHANGES.last:
            modules = self._bind_modules()
        x, options, ragged = self._read(x, lengths, resets, mask, masked_output, threads)
        if recompute is not None:
            options |= self._options(recompute=read_recompute(recompute))
        modules = modules if ragged is None else ragged.around(modules)
        states = self._no_states if state is None else self._entries("state", state)
        finals: list[Any] = []
        tapes = []
        for module in modules:
            if module.is_recurrent:
                (x, final), tape = module.forward(x, states[len(finals)], **options)
                finals.append(final)
            else:
                x, tape = module.forward(x)
            tapes.append(tape)
        tape = SequentialTape(self, tapes, modules, ragged)
        if ragged is not None and not self.pools_steps:
            tape.features = ragged.features_of(x)
            x = ragged.give_back(x)
        return (x, tuple(finals)) if self.is_recurrent else x, tape

    def backward(
        self,
        tape: Any,
        dy: Any = None,
        dstate: Any = None,
        *,
        with_x: bool = True,
        threads: int | None = None,
    ) -> Gradients:
        """Run every layer's `backward`, from the last to the first.

        Parameters
        ----------
        tape : SequentialTape
            From `forward`.
        dy : array, or list of arrays if y is a list
            Gradient of y, in y's shape. None stands for zeros if the last layer is recurrent.
        dstate : tuple or None
            Gradient of the final state, in the form of `state`.
        with_x : bool, default True
            Whether to compute the gradient of x. Training does not need it.
        threads : int or None
            Passed on to every recurrent layer.

        Returns
        -------
        Gradients
            Of x (None without `with_x`), of the initial state, and of every parameter under its
            prefixed name.

        Raises
        ------
        ValueError
            The tape is from another layer or was used, or a gradient's shape does not fit. The tape
            can then be used again, unless the error is from a module of one's own.
        """
        tape = check_tape(tape, SequentialTape, self)
        options = self._options(threads=None if threads is None else read_size("threads", threads))
        with_x = read_flag("with_x", with_x)
        if tape.ragged is not None:
            dy = tape.ragged.read_gradient(dy, tape.features)
        tape.claim()
        try:
            dstates = list(self._no_states if dstate is None else self._entries("dstate", dstate))
            if dstate is not None:
                self._check_dstate(tape, dstate)
        except (TypeError, ValueError):
            tape.give_back()
            raise
        by_layer: list[Gradients] = []
        for module in reversed(tape.modules):
            kept = tape.tapes.pop()  # pop, so that the memory is freed after the layer
            arguments, own = ((dstates.pop(),), options) if module.is_recurrent else ((), {})
            if not (with_x or tape.tapes) and self._first_takes_with_x:
                own = {**own, "with_x": False}
            try:
                gradients = module.backward(kept, dy, *arguments, **own)
            except (TypeError, ValueError):
                if not by_layer:  # dy is wrong, and no layer has used its tape
                    tape.tapes.append(kept)
                    tape.give_back()
                raise
            dy = gradients.x
            by_layer.insert(0, gradients)
        states = [
            gradients.state
            for module, gradients in zip(self._modules, by_layer, strict=True)
            if module.is_recurrent
        ]
        if not with_x:
            dy = None
        elif tape.ragged is not None:
            dy = tape.ragged.give_back(dy, repeat=False)
        return Gradients(
            x=dy,
            state=tuple(states) if self.is_recurrent else None,
            params={
                f"{index}.{name}": array
                for index, gradients in enumerate(by_layer)
                for name, array in gradients.params.items()
            },
        )

    def _check_dstate(self, tape: SequentialTape, dstate: Any) -> None:
        """Raise unless a backward of this tape can take the gradient of the final state."""
        entries = iter(self._entries("dstate", dstate))
        for module, kept in zip(self._modules, tape.tapes, strict=True):
            entry = next(entries) if module.is_recurrent else None
            if entry is not None and isinstance(module, (Stack, Sequential)):
                module._check_dstate(kept, entry)

    def _read(
        self, x: Any, lengths: Any, resets: Any, mask: Any, masked_output: Any, threads: Any
    ) -> tuple[Any, dict[str, Any], Ragged | None]:
        """x, the options of recurrent layers but those of steps, and the batch if it has these."""
        repeat = None if masked_output == "zero" else True
        given = self._options(
            lengths=lengths, resets=resets, mask=mask, masked_output=repeat, threads=threads
        )
        options = {} if threads is None else {"threads": given.pop("threads")}
        if not given and not self._marks_steps and not self._is_list(x):
            return x, options, None
        ragged = read_ragged(
            x,
            lengths,
            resets,
            mask,
            masked_output,
            list(self._leaves()),
            batch_first=self._before.batch_first,
            reverse=self._output(self._before).reverse if repeat else (),
            features=self._features_in(x),
        )
        return ragged.batch.x, options, ragged

    def _features_in(self, x: Any) -> tuple[int, ...] | None:
        """The axes of x after those of steps and rows, if they are known."""
        return None

    def _is_list(self, x: Any) -> bool:
        """Whether x is a list of sequences; a tuple may be else to a module of one's own."""
        first = next(self._leaves(), self)
        reads_steps = first.is_recurrent or first.acts_on_steps or first.pools_steps
        return isinstance(x, list) or (isinstance(x, tuple) and bool(reads_steps))

    def _options(self, **options: Any) -> dict[str, Any]:
        """The options that are not None; ValueError if no layer takes one."""
        given = {name: value for name, value in options.items() if value is not None}
        if not self.is_recurrent:
            for name in given:
                if not (self.pools_steps and name in OF_VALID_STEPS):
                    raise ValueError(f"{name}: no layer is recurrent, so expected None")
        return given

    def _entries(self, name: str, state: Any) -> tuple[Any, ...]:
        """A state with an entry for every recurrent layer, checked."""
        count = len(self._no_states)
        if not count:
            raise ValueError(f"{name}: no layer is recurrent, so expected None")
        if not isinstance(state, (tuple, list)) or len(state) != count:
            got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise ValueError(
                f"{name}: expected a tuple with an entry for each of {count} recurrent layers, "
                f"got {got}"
            )
        return tuple(state)

    def __getitem__(self, index: int | slice) -> Any:
        """A layer, or for a slice a Sequential of the same layers."""
        if isinstance(index, slice):
            return Sequential(*self._modules[index])
        return self._modules[index]
