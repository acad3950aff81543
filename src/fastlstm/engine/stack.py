"""The engine of every recurrent layer: a stack of cells in one or two directions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm import threads as pool
from fastlstm.changes import CHANGES
from fastlstm.checks import (
    read_dtype,
    read_flag,
    read_generator,
    read_number,
    read_size,
    warn_user,
)
from fastlstm.draws import current
from fastlstm.engine.cell import Cell
from fastlstm.engine.cells import Cells
from fastlstm.engine.dropout import draw_dropout
from fastlstm.engine.prepared import Chain, Drawn, Whole, prepare_steps
from fastlstm.engine.reading.plan import (
    Call,
    Form,
    Opened,
    RecurrentTape,
    check_out,
    is_apart,
    read_call,
    read_gradient,
)
from fastlstm.engine.reading.streams import read_step
from fastlstm.engine.recompute import Recomputing, prepare_legs, read_recompute
from fastlstm.kernels import have_choices, kernels
from fastlstm.kernels.arguments import Kernels
from fastlstm.module import Gradients, Module, Output, Parameters, check_tape


class Stack(Module):
    """A stack of layers of cells, in one or two directions, over sequences.

    Parameters
    ----------
    cells : sequence of sequences of Cell
        For each layer, one cell for each direction.
    reverse : tuple of bool
        For each direction, whether it reads from the end.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features).
    dropout : float in [0, 1]
        In training, the probability that a value between layers is zeroed. The output of the last
        layer is never dropped.
    learn_initial_state : bool
        Whether the initial state of calls without a state is a parameter.
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        Source of initial values and of all random numbers in training.
    parameters : mapping of str to array, optional
        All parameters by name, in the cells' shapes and this dtype, in place of initial values.
    """

    is_recurrent = True
    one_step = False  # whether x is one step without an axis of steps
    # The last change that a call saw, and what calls use until the next one: of inference with the
    # same `threads`, and of training without `threads`.
    _last_infer: tuple[object, Any, Any] = None, None, None
    _last_training: tuple[object, Any, Any, Any] = None, None, None, None

    def __init__(
        self,
        cells: Sequence[Sequence[Cell]],
        *,
        reverse: tuple[bool, ...] = (False,),
        batch_first: bool = False,
        dropout: float = 0.0,
        learn_initial_state: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
        parameters: Mapping[str, np.ndarray] | None = None,
    ):
        self.batch_first = read_flag("batch_first", batch_first)
        self.dropout = read_number("dropout", dropout, 0, 1)
        self.learn_initial_state = read_flag("learn_initial_state", learn_initial_state)
        self.dtype = read_dtype("dtype", dtype)
        self._rng = read_generator("rng", rng)
        self._drops = bool(self.dropout) and len(cells) > 1
        self.cells = Cells(
            cells,
            reverse,
            batch_first=self.batch_first,
            one_step=self.one_step,
            drops=self._drops,
        )
        if self.dropout and len(cells) == 1:
            warn_user("dropout: acts between layers, so it has no effect with num_layers=1")
        inputs, outputs, layout = self.cells.inputs, self.cells.outputs, self.cells.layout
        self._form = Form(inputs, outputs, self.batch_first, self.one_step, layout, self.dtype)
        # Whether arguments have to be read before every call of the kernels.
        self._reads_first = not layout.is_even
        self._draws = self._drops or self.cells.draws
        if parameters is None:
            parameters = self.cells.initial(self._rng, self.dtype, self.learn_initial_state)
        self._parameters = Parameters(parameters)

    # Calls.

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
        out: Any = None,
        threads: int | None = None,
    ) -> tuple[Any, Any]:
        """Compute the outputs of every step and the final state, as inference: nothing is saved.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) with `batch_first`, or (T, I) for one sequence; or a list
            A list holds sequences (T_k, I) of any lengths. Any strides; other real or integer
            dtypes are cast to the layer's.
        state : array or tuple of arrays, optional
            The initial state, an array of shape (layers · directions, B, size) for each of its
            parts, without B if x has none. None stands for zeros, or for the learned state. If
            layers differ in width, a part is a list of arrays (directions, B, size), one for each
            layer.
        lengths : array (B,) of ints, optional
            0 to T: the number of steps of each row; padding is on the right. Steps after a row's
            end cost nothing, and their output is exactly zero. The final state of a row is the
            state after its last step; the reverse direction begins there. Padding is never read.
            For padding on the left, or steps to skip within a row, see `mask`.
        resets : bool array (T, B), (B, T) with `batch_first`, or (T,), optional
            True at the first step of a sequence, where a row holds several: no state and no
            gradient passes between that step and the one before, in either direction. For a list,
            a list of arrays. Numbers 0 and 1 stand for bools, here and in `mask`.
            A reset at a masked step is one at the row's next kept step.
        mask : bool array (T, B), (B, T) with `batch_first`, or (T,), optional
            False where a step is skipped, in any pattern: padding on the left, holes, whole rows.
            For a list, a list of arrays. The state is carried over, in either direction, and x is
            not read: the results are, to the bit, those of the kept steps alone. With `lengths`,
            a step is kept where both keep it.
        masked_output : "zero" or "repeat"
            What y has at masked steps: zeros; or, as in Keras, the output of the step kept before,
            in the order of each direction, and zeros where there is none. Zeros in any case after
            the end that `lengths` gives.
        out : array, optional
            The array to store y in, of y's shape and the layer's dtype, with any strides.
        threads : int, optional
            The most threads to compute on, in place of `get_num_threads`.

        Returns
        -------
        y : array (T, B, directions · P), in the layout of x; a list if x is a list
            A new array, or `out`. Zeros after the end of a row and at masked steps.
        state : in the form of the argument
            The state after the last step of every row, ready for the next call. That of the
            reverse direction is the state after the row's first step, so with `resets` it is that
            of the row's first sequence.

        Raises
        ------
        ValueError
            A shape or a value does not fit; the message names the argument.
        TypeError
            An array does not hold real numbers, or `mask` or `resets` no bools, nor 0 and 1.
        KeyboardInterrupt
            Ctrl-C was pressed during the call, or another signal's handler raised, in the main
            thread. What `out` then holds is undefined; the layer can be called again.

        Examples
        --------
        >>> import numpy as np, fastlstm as fl
        >>> lstm = fl.LSTM(3, 5, rng=0)
        >>> ys, (h, c) = lstm([np.ones((4, 3)), np.ones((2, 3))])  # sequences as they are
        >>> [y.shape for y in ys], h.shape
        ([(4, 5), (2, 5)], (1, 2, 5))
        >>> x, begins = np.ones((7, 2, 3)), np.zeros((7, 2), bool)
        >>> begins[4, 1] = True  # a new sequence in the second row
        >>> y, state = lstm(x, resets=begins)
        >>> bool((y[4, 1] == y[0, 0]).all())
        True
        >>> kept = np.ones((7, 2), bool)
        >>> kept[:3, 1] = False  # padding on the left of the second row
        >>> y, state = lstm(x, mask=kept)
        >>> bool((y[3:, 1] == y[:4, 0]).all()), float(abs(y[:3, 1]).max())
        (True, 0.0)
        """
        change, same_threads, infer = self._last_infer
        if change is not CHANGES.last or threads is not same_threads:
            infer = self._get_infer(threads)
        is_plain = mask is None and masked_output == "zero"
        if is_plain and (state is not None or not self.learn_initial_state):
            result: tuple[Any, Any] = infer(x, state, lengths, resets, out)
            if result is not NotImplemented:
                return result
        k, parameters = kernels(self.dtype), self._parameters
        prepared = self.cells.prepared(k, parameters, _most_threads(threads))
        call = self._read(x, state, parameters, lengths, resets, mask, masked_output)
        target = None
        if out is not None:
            check_out(out, call, self._form)
            target = out if call.given is None and is_apart(out, call) else None
        result = prepared.forward(*call.arguments, target)
        if result is NotImplemented:
            result = prepared.forward(*call.arguments)
        y, final = result
        if call.given is not None:
            y = call.given.give_back(y)
        if out is not None and y is not out:
            out[...] = y
            y = out
        return y, final

    def zero_state(self, B: int) -> Any:
        """Return the state in which B rows begin, for `step`.

        Parameters
        ----------
        B : int
            Number of rows, 0 or more.

        Returns
        -------
        state : array or tuple of arrays
            New arrays in the form that a call takes: of zeros, or with the learned initial state in
            every row.
        """
        B = read_size("B", B, minimum=0)
        if self.learn_initial_state:
            return self.cells.learned_state(self._parameters, (B,))
        return self._form.layout.zeros(B, self.one_step, self.dtype)

    def step(self, x: Any, state: Any, rows: Any = None, out: Any = None) -> np.ndarray:
        """Compute one step of some rows, as inference, and update their state in place.

        This is for streams that begin, end and pause at different times: each has a row of the
        state. The bits of its result are those of the row called alone.

        Parameters
        ----------
        x : array (n, I)
            Any strides; other real or integer dtypes are cast to the layer's.
        state : array or tuple of arrays
            In the form of `zero_state`, for B rows: writeable arrays of the layer's dtype, each
            contiguous along its last axis, which share no memory. They are updated at `rows`.
        rows : array (n,) of ints, optional
            The row of the state for each row of x: 0 to B - 1, none of them twice. None stands for
            all B rows in order.
        out : array (n, P), optional
            The array to store y in, of the layer's dtype. It shares no memory with x and the state.

        Returns
        -------
        y : array (n, P)
            The output of the last layer: a new array, or `out`.

        Raises
        ------
        ValueError
            A shape or a value does not fit, an array cannot be updated, or the layer is
            bidirectional. The state is then unchanged.
        TypeError
            An array of the state or `out` has another dtype, or x or `rows` another kind of
            numbers. The state is then unchanged.

        Examples
        --------
        >>> import numpy as np, fastlstm as fl
        >>> lstm = fl.LSTM(3, 5, rng=0)
        >>> h, c = state = lstm.zero_state(4)
        >>> y = lstm.step(np.ones((2, 3)), state, rows=[3, 1])  # two of four streams
        >>> y.shape, h.any(axis=(0, 2)).tolist()
        ((2, 5), [False, True, False, True])
        >>> h[:, 3] = c[:, 3] = 0  # another stream begins in row 3
        """
        k, parameters, threads = kernels(self.dtype), self._parameters, pool.get_num_threads()
        try:
            step = parameters.derived[k, threads, "step"]
        except KeyError:
            prepared = self.cells.prepared(k, parameters, threads)
            step = parameters.derive((k, threads, "step"), prepared.get_step)
        y: np.ndarray = step(x, state, rows, out)
        if y is not NotImplemented:
            return y
        call = read_step(x, state, rows, out, self._form, self.cells.reverse == (False,))
        y = self.cells.prepared(k, parameters, threads).step(*call)
        if out is None or y is out:
            return y
        out[...] = y
        returned: np.ndarray = out
        return returned

    def _check_streams(self, state: Any) -> None:
        """Raise unless `step` can update this state: a step of no rows makes all its checks."""
        self.step(np.empty((0, self._form.inputs), self.dtype), state, [])

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
    ) -> tuple[tuple[Any, Any], RecurrentTape]:
        """Compute as in a call, with dropout, and save the arrays that `backward` needs.

        Parameters
        ----------
        x, state, lengths, resets, mask, masked_output, threads
            As in a call. The tape has copies, so all of them may be changed before `backward`.
        recompute : int or "sqrt", optional
            For long sequences: save only x and the state every `recompute` steps, √T with "sqrt";
            `backward` then computes all steps once more. All results keep their bits. The tape and
            `backward` take memory for about T / `recompute` states and for `recompute` steps. If
            the layer is bidirectional, also for the whole output of each layer below the last.

        Returns
        -------
        (y, state) : as a call returns them
            y is read-only, since it is part of the tape.
        tape : RecurrentTape
            The argument of one `backward`.

        Raises
        ------
        ValueError, TypeError
            As in a call.

        Examples
        --------
        >>> import numpy as np, fastlstm as fl
        >>> lstm = fl.LSTM(3, 5, rng=0)
        >>> (y, state), tape = lstm.forward(np.ones((7, 2, 3)))
        >>> grads = lstm.backward(tape, dy=np.ones_like(y))
        >>> grads.x.shape, sorted(grads.params)[0]
        ((7, 2, 3), 'bias_hh_l0')
        >>> (y, state), tape = lstm.forward(np.ones((7, 2, 3)), recompute="sqrt")
        >>> same = lstm.backward(tape, dy=np.ones_like(y))
        >>> bool((same.params["weight_hh_l0"] == grads.params["weight_hh_l0"]).all())
        True
        """
        change, k, parameters, prepared = self._last_training
        if change is not CHANGES.last or threads is not None:
            k, parameters, prepared = self._get_training(threads)
        if recompute is not None:
            recompute = read_recompute(recompute)
        learned = self.learn_initial_state and state is None
        masks, given, result = None, None, NotImplemented
        is_plain = mask is None and masked_output == "zero" and recompute is None
        if is_plain and not (self._reads_first or self._draws or learned):
            result = prepared.forward(x, state, lengths, resets, None, None, True)
        if result is NotImplemented:
            call = self._read(x, state, parameters, lengths, resets, mask, masked_output)
            given = call.given
            masks = self._draw(call, prepared) if self._draws else None
            calls: Any = prepared
            if recompute is not None:
                calls = self._recomputing(k, parameters, threads, recompute)
            result = calls.forward(*call.arguments, None, masks, True)
            if result is NotImplemented:
                raise ValueError("cells: what draw gave has another shape or dtype than Masks say")
        y, final, saved, arguments = result
        tape = RecurrentTape(self, parameters, k, arguments, masks, saved, given, learned)
        if recompute is not None:
            tape.masks, tape.recompute = None, recompute  # `saved` has the masks
        return (y if given is None else given.give_back(y), final), tape

    def backward(
        self,
        tape: RecurrentTape,
        dy: Any = None,
        dstate: Any = None,
        *,
        with_x: bool = True,
        threads: int | None = None,
    ) -> Gradients:
        """Compute the gradients of x, the initial state and every parameter.

        Parameters
        ----------
        tape : RecurrentTape
            From `forward`. A tape serves one backward, which overwrites its arrays.
        dy : array, or list of arrays if x was a list, optional
            Gradient of y, in its shape; zeros if None. Values after a row's end are ignored, and
            those at masked steps, which with "repeat" belong to the step that is repeated.
        dstate : array or tuple of arrays, optional
            Gradient of the final state, in its form; zeros if None.
        with_x : bool, default True
            Whether to compute the gradient of x. Training does not need that of a model's own
            input, which takes up to a sixth of the time of `forward` and `backward`.
        threads : int, optional
            The most threads to compute on.

        Returns
        -------
        Gradients
            Of x in its shape (None without `with_x`), of the initial state, and of the parameters
            by name.

        Raises
        ------
        ValueError
            The tape is from another layer or was used, or a gradient's shape does not fit.
        TypeError
            An array does not hold real numbers.
        """
        tape = check_tape(tape, RecurrentTape, self)
        change, k, parameters, prepared = self._last_training
        if tape.recompute is not None:
            prepared = self._recomputing(tape.kernels, tape.parameters, threads, tape.recompute)
        elif (
            change is not CHANGES.last
            or threads is not None
            or parameters is not tape.parameters
            or k is not tape.kernels
        ):
            limit = _most_threads(threads)
            prepared = self.cells.prepared(tape.kernels, tape.parameters, limit, training=True)
        form, result = self._form, NotImplemented
        if with_x is not True:  # reading it would take 1 % of a call of one step
            with_x = read_flag("with_x", with_x)
        tape.claim()
        (x, state, lengths, resets), masks, saved = tape.arguments, tape.masks, tape.saved
        if tape.given is None and tape.recompute is None and not self._reads_first:
            result = prepared.backward(x, state, lengths, resets, masks, saved, dy, dstate, with_x)
        if result is NotImplemented:
            try:
                call = tape.call
                dy = read_gradient(dy, call, form)
                dstate = form.layout.read("dstate", dstate, call.batch(form), form.dtype)
            except (TypeError, ValueError):
                tape.give_back()
                raise
            result = prepared.backward(x, state, lengths, resets, masks, saved, dy, dstate, with_x)
        tape.arguments, tape.saved = (None, None, None, None), None
        dx, dfirst, gradients = result
        params = self.cells.by_name(gradients)
        if self.learn_initial_state:
            params |= self.cells.of_learned_state(dfirst, tape.learned_state)
            params = {name: params[name] for name in tape.parameters}
        if tape.given is not None and with_x:
            dx = tape.given.give_back(dx, repeat=False)
        return Gradients(dx, dfirst, params)

    # Within a `Sequential`.

    @property
    def _inputs(self) -> int | None:
        return self.cells.inputs

    def _output(self, before: Output) -> Output:
        return Output(self._form.outputs, self.dtype, self.cells.reverse, self.batch_first)

    def _check_dstate(self, tape: RecurrentTape, dstate: Any) -> None:
        """Raise unless a backward of this tape can take the gradient of the final state."""
        self._form.layout.read("dstate", dstate, tape.call.batch(self._form), self.dtype)

    # Within `fastlstm.inspection`.

    def _opened(
        self, x: Any, state: Any = None, *, threads: int | None = None, **options: Any
    ) -> Opened:
        """Compute the bits of a call, and save what `forward` would save."""
        k, parameters, limit = kernels(self.dtype), self._parameters, _most_threads(threads)
        prepared = self.cells.prepared(k, parameters, limit, training=True)
        steps = self.cells.prepared_by(prepare_steps, k, parameters, limit)
        call = self._read(x, state, parameters, **options)
        if self.cells.draws:  # training is another computation
            y, final = prepared.forward(*call.arguments)
            return Opened(call, y, final, None, steps, parameters)
        y, final, saved, (x, _, lengths, resets) = prepared.forward(
            *call.arguments, None, None, True
        )
        call = call._replace(x=x, lengths=lengths, resets=resets)
        return Opened(call, y, final, saved, steps, parameters)

    # Within `fastlstm.in_torch`.

    def _calls_with(
        self, parameters: Parameters, threads: int, training: bool = False
    ) -> Whole | Chain:
        """Return the calls of this stack, prepared for other parameters than its own."""
        return self.cells.prepared(kernels(self.dtype), parameters, threads, training)

    # The work.

    def _get_infer(self, threads: Any) -> Any:
        """The function of inference, for a caller's arguments before they are checked."""
        change, k, parameters = CHANGES.last, kernels(self.dtype), self._parameters
        limit = _most_threads(threads)
        infer = self.cells.prepared(k, parameters, limit).get_infer()
        if not have_choices():
            self.__dict__["_last_infer"] = change, threads, infer
        return infer

    def _get_training(self, threads: Any) -> tuple[Kernels, Parameters, Whole | Chain]:
        """The kernels and parameters of a training call, and what is prepared of them."""
        change, k, parameters = CHANGES.last, kernels(self.dtype), self._parameters
        limit = _most_threads(threads)
        prepared = self.cells.prepared(k, parameters, limit, training=True)
        if threads is None and not have_choices():
            self.__dict__["_last_training"] = change, k, parameters, prepared
        return k, parameters, prepared

    def _recomputing(
        self, k: Kernels, parameters: Parameters, threads: Any, every: int | str
    ) -> Recomputing:
        """The calls of training, with the state kept after so many steps."""
        legs = self.cells.prepared_by(prepare_legs, k, parameters, _most_threads(threads))
        return Recomputing(legs, self._form.layout, self.batch_first, every)

    def _read(
        self,
        x: Any,
        state: Any,
        parameters: Parameters,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
    ) -> Call:
        form, reverse = self._form, self.cells.reverse
        call = read_call(x, state, lengths, resets, form, mask, masked_output, reverse)
        if state is None and self.learn_initial_state:
            call = call._replace(state=self.cells.learned_state(parameters, call.batch(form)))
        return call

    def _draw(self, call: Call, prepared: Whole | Chain) -> Any:
        """The random numbers of a call, drawn by layer and direction, in the form of `prepared`."""
        dropped, masks = [], []
        trainer = current()
        axis = int(call.x.ndim == 3 and not self.batch_first)  # of rows
        for layer, cells in enumerate(self.cells.by_layer):
            between = None
            if self._drops and layer:
                shape = *call.x.shape[:-1], cells[0].inputs
                between = draw_dropout(self._rng, shape, self.dropout, axis)
            dropped.append(between)
            for cell in cells:
                rng = trainer.generator() if trainer and cell.draws else self._rng
                masks.append(cell.draw(rng, *call.sizes(self._form)))
        if isinstance(prepared, Chain):
            return Drawn(tuple(dropped), tuple(masks))
        return tuple(masks)


def _most_threads(threads: Any) -> int:
    """The most threads of a call with this argument."""
    return pool.get_num_threads() if threads is None else read_size("threads", threads)
