# The description of a cell that the walks through time use.
#
# A cell is packed weights, a few sizes, and functions: the phases of a step, forward and backward.
# All members of a team finish one phase before any of them begins the next.

from cpython.pycapsule cimport (
    PyCapsule_GetContext,
    PyCapsule_GetPointer,
    PyCapsule_IsValid,
    PyCapsule_New,
    PyCapsule_SetContext,
)
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from *:
    """
    /* Capsule names that contain the build, so that no build accepts cells packed by another. */
    #define TEXT_OF(value) #value
    #define TEXT(value) TEXT_OF(value)
    #ifdef FASTLSTM_FLOAT64
    #define BUILD TEXT(VEC_BYTES) " float64"
    #else
    #define BUILD TEXT(VEC_BYTES) " float32"
    #endif
    static const char CELL[] = "fastlstm cell " BUILD, STACK[] = "fastlstm stack " BUILD;
    """
    const char* CELL
    const char* STACK

cdef enum:
    MOST_STATES = 2  # arrays of a state
    MOST_SAVED = 7  # arrays that a cell saves for backward
    MOST_GRADIENTS = 10  # parameters of a cell
    MOST_PHASES = 4  # phases of a step
    MOST_SUMS = 3  # sums of outer products in the gradients of a cell

cdef struct ForwardStep
cdef struct Pass
cdef struct BackwardStep
cdef struct Outer

ctypedef void (*ForwardPhase)(
    const Pass* f, const ForwardStep* at, const Team* team
) noexcept nogil
ctypedef void (*BackwardPhase)(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil
ctypedef Py_ssize_t (*SumsOf)(const Pass* f, Outer* sums) noexcept nogil
ctypedef void (*AfterSums)(const Pass* f) noexcept nogil


cdef struct Cell:
    Py_ssize_t inputs
    Py_ssize_t H
    Py_ssize_t P  # outputs: H, or the size of the projection
    Py_ssize_t states  # number of arrays of the state: 1 for h, 2 for h and c
    Py_ssize_t[MOST_STATES] sizes  # size of each array of the state; the first is P
    Py_ssize_t weights  # multiply-adds of one row in one step

    # Forward.
    const real* panels  # [sets][blocks], each [4][V] biases, then [inputs + P] rows of `row_size`
    Py_ssize_t sets
    Py_ssize_t blocks
    Py_ssize_t row_size  # reals of one k of a block
    const real* projection  # packed W_hr, or NULL
    bint zoned  # whether the state keeps old values in training, by the flags of `Drawn`
    Py_ssize_t phases  # number of phases of a step
    ForwardPhase[MOST_PHASES] phase
    Py_ssize_t shared  # reals of scratch for each row, one memory for the whole team
    Py_ssize_t own  # reals of scratch for each thread

    # Saved in training: arrays [T, B, rows, columns]; 0 rows for [T, B, columns]. They are, in this
    # order: gates; each array of the state after each step, except h; the hidden units before a
    # projection; arrays of variants.
    Py_ssize_t saved
    Py_ssize_t[MOST_SAVED][2] saved_shape
    Py_ssize_t slopes  # index of the saved slopes of gates; 0 if the cell does not save them

    # Backward.
    const real* recurrent[2]  # packed Rᵀ; of a GRU, two matrices: R_rᵀ with R_zᵀ, and R_nᵀ
    const real* transposed  # packed Wᵀ; NULL if the cell was packed for forward only
    const real* projection_transposed  # packed W_hrᵀ, or NULL
    Py_ssize_t d_input  # index of the saved array that backward replaces by the gradient of W x
    Py_ssize_t d_input_size  # columns of this gradient
    Py_ssize_t back_phases  # number of phases of a step backward
    BackwardPhase[MOST_PHASES] back_phase
    Py_ssize_t back_shared  # as `shared`, backward
    Py_ssize_t back_own  # as `own`, backward
    Py_ssize_t back_series  # reals of scratch for each row of each step
    Py_ssize_t row_sums  # reals for each row, to sum the gradients of vectors over the steps
    Py_ssize_t gradients  # number of parameters
    Py_ssize_t[MOST_GRADIENTS][2] gradient_shape  # rows and columns; 0 columns for a vector
    bint has_bias
    SumsOf sums  # sets up to MOST_SUMS sums of outer products and returns their number
    AfterSums after_sums  # completes the gradients: biases, and vectors from `row_sums`
    const void* options  # a struct of the cell's own, right after this one in memory


cdef void _drop_cell(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, CELL):
        arrays = <object> PyCapsule_GetContext(capsule)
        PyMem_RawFree(PyCapsule_GetPointer(capsule, CELL))
        Py_DECREF(arrays)


cdef object _new_cell(const Cell* cell, const void* options, Py_ssize_t size, tuple arrays):
    """A capsule of the cell and its `options`; it keeps alive the arrays that they point into."""
    cdef Cell* copy = <Cell*> PyMem_RawMalloc(sizeof(Cell) + size)
    if copy == NULL:
        raise MemoryError("expected memory for a packed cell, got none")
    copy[0] = cell[0]
    copy.options = copy + 1
    memcpy(copy + 1, options, size)
    capsule = PyCapsule_New(copy, CELL, _drop_cell)
    Py_INCREF(arrays)
    PyCapsule_SetContext(capsule, <void*> arrays)
    return capsule


cdef inline void _save_as(Cell* cell, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Add an array [T, B, rows, columns] to those that training saves."""
    cell.saved_shape[cell.saved][0], cell.saved_shape[cell.saved][1] = rows, columns
    cell.saved += 1


cdef inline void _learn(Cell* cell, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Add a parameter [rows, columns], or [rows] with 0 columns, to those with a gradient."""
    cell.gradient_shape[cell.gradients][0] = rows
    cell.gradient_shape[cell.gradients][1] = columns
    cell.gradients += 1


cdef Cell _plain_cell(Py_ssize_t inputs, Py_ssize_t H, Py_ssize_t P, Py_ssize_t gates, bint bias):
    """A cell of one state h and one set of panels, with `gates` rows of W and R for each unit."""
    cdef Cell cell
    memset(&cell, 0, sizeof(cell))
    cell.inputs, cell.H, cell.P = inputs, H, P
    cell.states, cell.sizes[0] = 1, P
    cell.weights = gates * H * (inputs + P)
    cell.sets, cell.blocks, cell.row_size = 1, _blocks(H, V), PANEL
    cell.d_input_size = gates * H
    cell.has_bias = bias
    _learn(&cell, gates * H, inputs)
    _learn(&cell, gates * H, P)
    if bias:
        _learn(&cell, gates * H, 0)
        _learn(&cell, gates * H, 0)
    return cell


cdef struct Flags:
    # An array of bools [T, B, N] by pointer.
    const unsigned char* data  # or NULL
    Py_ssize_t step
    Py_ssize_t row


cdef inline const unsigned char* _flags_at(
    const Flags* flags, Py_ssize_t t, Py_ssize_t row
) noexcept nogil:
    """The flags of one row in one step, or NULL."""
    if flags.data == NULL:
        return NULL
    return flags.data + t * flags.step + row * flags.row


cdef struct Drawn:
    # The random numbers of a training call; no data where there are none.
    Series factors  # [B, P] recurrent dropout: factors of the h that R multiplies
    Flags kept_h  # [T, B, P] zoneout: 1 where h keeps its old value
    Flags kept_c  # [T, B, H] zoneout: 1 where c keeps its old value


cdef struct Pass:
    # One direction of one layer over the whole sequence, forward or backward.
    Walk walk
    const Cell* cell
    Series x  # [T, B, I]
    Series y  # OUT [T, B, P]; IN backward
    Series[MOST_STATES] first  # [B, size] the initial state
    # OUT [B, size] the final state. Backward: IN its gradient, OUT the gradient of `first`.
    Series[MOST_STATES] last
    bint training  # whether `saved` has data
    Series[MOST_SAVED] saved  # OUT; backward IN, OUT gradients
    Drawn drawn
    const real* zeros  # as many zeros as a panel, and as any part of a state
    # [n][cell.shared] scratch of the whole team. The last H reals of a row are the hidden units
    # before a projection, if there is one.
    real* shared
    # Backward only.
    Series dy  # [T, B, P]; no data for zeros
    Series series  # scratch [T, B, cell.back_series]
    Series row_sums  # [B][levels][cell.row_sums]: added to, at the first level
    Py_ssize_t steps  # of all calls for these gradients
    Py_ssize_t later  # steps of earlier calls, which are later in the walk
    real* gradients[MOST_GRADIENTS]  # OUT


cdef inline vec _kept_lanes(
    const Pass* f, const Flags* flags, Py_ssize_t t, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """The flags of V units of row s: 1 where zoneout keeps the old value; 0 without flags."""
    cdef const unsigned char* kept = _flags_at(flags, t, _row(&f.walk, s))
    return vec_of(0) if kept == NULL else vec_of_flags(kept + unit, f.cell.H - unit)
