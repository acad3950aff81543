# The plain recurrent network, forward and backward. Equations: reference/cells/rnn.py.

cdef struct RnnOptions:
    Activation activation
    real clip


cdef inline void _finish_rnn(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """h' of 4V units; in training, the slopes of its activation are saved."""
    cdef const RnnOptions* options = <const RnnOptions*> f.cell.options
    cdef Py_ssize_t k, at_unit, n
    cdef vec h, slope
    cdef vec* wanted = &slope if at.gates != NULL else NULL
    for k in range(4):
        at_unit = unit + k * V
        n = f.cell.H - at_unit
        if n <= 0:
            return
        if options.clip == <real> INFINITY:  # the usual case; a call for each register costs 3 %
            _activate_lanes(&options.activation, z[k], &h, wanted)
        else:
            h = _activate_clipped(&options.activation, options.clip, z[k], wanted)
        _store(at.after[0][s] + at_unit, h, n)
        if at.gates != NULL:
            _store(at.gates[s] + at_unit, slope, n)


cdef void _rnn_gates(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    _gate_step(False, True, 0, _finish_rnn, f, at, 0, at.met)


cdef void _rnn_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that replaces slopes by the gradients of preactivations."""
    cdef Py_ssize_t s, unit, n
    for s in range(at.n):
        unit = at.begin
        while unit < at.end:
            n = at.end - unit
            _prefetch_step_before(f, at, s, unit)
            _store(
                at.gates[s] + unit,
                _load(at.gates[s] + unit, n)
                * (_load(at.dy[s] + unit, n) + _load(at.d[0][s] + unit, n)),
                n,
            )
            unit += V


cdef void _rnn_state_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that computes the gradient of the h before from that of the preactivations."""
    _product_into_state(f, at, &f.saved[0], f.cell.H, f.cell.recurrent[0], False)
    _cut_state(f, at)


cdef Py_ssize_t _rnn_sums(const Pass* f, Outer* sums) noexcept nogil:
    sums[0] = _outer(&f.walk, f.saved[0], f.cell.H)
    _meet_x(f, &sums[0])
    _meet_h(f, &sums[0])
    if f.cell.has_bias:
        sums[0].db = f.gradients[2]
    return 1


def pack_rnn(weights, options, bint backward=False):
    """Pack a plain recurrent network's weights and options for `stack`: see kernels/arguments.py.

    With `backward`, the cell serves for forward and backward; without it, for forward only.
    """
    W, R, bias_ih, bias_hh = tuple(weights)
    activation, clip = tuple(options)
    cdef Py_ssize_t H = _gate_size(W, 1)
    cdef Cell cell = _plain_cell(W.shape[1], H, H, 1, bias_ih is not None)
    cdef RnnOptions own
    cdef list arrays = []
    cdef Weights read = _read_weights(W, R, bias_ih, bias_hh, H, H)
    own.activation, own.clip = _read_activation(activation), _number(clip)
    _save_as(&cell, 1, H)
    cell.panels = _panels(_pack_wide(&read, 1), arrays)
    cell.blocks = _blocks(H, PANEL)
    cell.phase[0], cell.phases = _rnn_gates, 1
    if backward:
        cell.transposed = _panels(pack(W.T), arrays)
        cell.recurrent[0] = _panels(pack(R.T), arrays)
        cell.back_phase[0], cell.back_phase[1] = _rnn_cells_backward, _rnn_state_backward
        cell.back_phases = 2
        cell.sums, cell.after_sums = _rnn_sums, _copy_bias
    return _new_cell(&cell, &own, sizeof(own), tuple(arrays))
