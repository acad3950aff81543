"""The compiled twin of reference/: this source, built once for each instruction set and dtype.

Design:
    simd.pxi              the register type, partial loads and stores, scratch memory
    activations.pxi       tanh and sigmoid
    more_activations.pxi  all the activations that ONNX lists, with their slopes
    tile.pxi              the one inner loop: a tile of rows x gates kept in registers
    walk.pxi              which rows live at which step, and what came before them
    atomics.pxi           what threads need to wait for one another
    team.pxi              threads that share a task
    team_steps.pxi        and every step of a walk
    product.pxi           packing and dense products
    weight_gradient.pxi   sums of outer products
    arrays.pxi            arrays by pointer
    lstm.pxi              the cell, and one step of all rows
    lstm_forward.pxi      the walk through time
    lstm_backward.pxi     the cell and the walk, backwards
    lstm_call.pxi         whole calls, for the small ones
    gru.pxi               the GRU forward, as torch has it
    gru_general.pxi       the same with other activations, clip, reset before the product
    gru_backward.pxi      both, backwards
    rnn.pxi               the plain recurrent network, both ways
    layer_norm.pxi        a row to mean 0 and variance 1, and back
    lstm_variants.pxi     the cell with peepholes, coupled gates, other activations, ...
    lstm_general.pxi      a cell's walk when whole rows of preactivations come first
    lstm_general_backward.pxi

A matrix is packed into panels [block][k][4][V], V lanes of a register: one k of one block is what a
tile multiplies by one number of each row. For gates, "4" are the gates of V hidden units, so that
all four leave the tile together and the cell update follows while they are in the first cache; for
other matrices, "4" are neighbouring groups of V outputs.

Every sum runs over k in one order, whatever the tile's shape, so a row's bits do not depend on its
neighbours. What flags and macros decide: `real`, V, and how many rows a tile holds.
"""

import numpy as np

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastlstm.kernels._pool cimport Job, dismiss, invite

include "simd.pxi"
include "activations.pxi"
include "more_activations.pxi"
include "tile.pxi"
include "walk.pxi"
include "team.pxi"
include "team_steps.pxi"
include "product.pxi"
include "weight_gradient.pxi"
include "arrays.pxi"
include "lstm.pxi"
include "lstm_forward.pxi"
include "lstm_backward.pxi"
include "lstm_call.pxi"
include "gru.pxi"
include "gru_general.pxi"
include "gru_backward.pxi"
include "rnn.pxi"
include "layer_norm.pxi"
include "lstm_variants.pxi"
include "lstm_general.pxi"
include "lstm_general_backward.pxi"
