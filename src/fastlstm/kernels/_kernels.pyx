"""The compiled kernels, with the functions of reference/; built for each instruction set and dtype.

Design:
    core/  does not name any cell
        vectors/    the vector type; sums of rows; activations and their slopes; layer norm;
                    steps of optimizers
        arguments/  memory; how arrays and weights are read and checked
        threads/    teams: how threads divide a task, or every step of a walk; signals that end it
        products/   the one inner loop, whose sums stay in registers; dense products; weight
                    gradients, which are sums of outer products
        walks/      which rows are live at which step; the struct that describes a cell; the walks
                    forward and backward through time; layers and directions in one call
    cells/  each cell packs its weights and defines the phases of a step, forward and backward

A matrix is packed into panels [block][k][4][V], where V is the number of lanes of a register. A
tile multiplies the 4V numbers of one k of one block by one number of each row. In a panel of gates,
the 4 are the gates of V hidden units, so all four gates of a unit leave the tile together, and the
cell update follows while they are in the first cache. In other panels, the 4 are neighboring groups
of V outputs.

Every sum runs over k in the same order for every shape of a tile, so the bits of a row do not
depend on the other rows. Compiler flags and macros set `real`, V, and the number of rows in a tile.
"""

import numpy as np

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastlstm.kernels.arguments import has_own_elements, no_memory

from fastlstm.kernels._pool cimport Job, dismiss, interrupted, invite

include "core/vectors/simd.pxi"
include "core/arguments/memory.pxi"
include "core/vectors/rows.pxi"
include "core/vectors/activations.pxi"
include "core/vectors/more_activations.pxi"
include "core/products/tile.pxi"
include "core/walks/walk.pxi"
include "core/threads/interrupts.pxi"
include "core/threads/team.pxi"
include "core/threads/team_steps.pxi"
include "core/arguments/arrays.pxi"
include "core/arguments/weights.pxi"
include "core/products/product.pxi"
include "core/products/long_sums.pxi"
include "core/products/outer.pxi"
include "core/products/few_columns.pxi"
include "core/products/weight_gradient.pxi"
include "core/walks/cell.pxi"
include "core/walks/gates.pxi"
include "core/walks/forward.pxi"
include "core/walks/backward.pxi"
include "core/walks/stack.pxi"
include "core/walks/layer.pxi"
include "core/walks/stack_forward.pxi"
include "core/walks/stack_backward.pxi"
include "core/walks/step.pxi"
include "core/vectors/layer_norm.pxi"
include "core/vectors/updates.pxi"
include "cells/lstm.pxi"
include "cells/lstm_variants.pxi"
include "cells/lstm_norm.pxi"
include "cells/lstm_pack.pxi"
include "cells/gru.pxi"
include "cells/gru_published.pxi"
include "cells/gru_backward.pxi"
include "cells/rnn.pxi"
