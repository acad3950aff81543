"""The kernels in NumPy, written to be read; they run where no compiled build is present.

A plain recurrent network rewrites its whole memory at every step, so a gradient sent back through
T steps is multiplied T times by the recurrent weights and vanishes or explodes. The LSTM keeps its
memory in a *cell state* c instead, which a step only scales and adds to. Gates control both; each
gate is a vector in (0, 1) that is computed from the input x and the previous output h:

- the **forget gate** f, "what to remember": how much of each cell is kept;
- the **input gate** i, "what to save": how much of each candidate is written;
- the **candidate** g (input modulation gate): what could be written. It is a tanh, not a sigmoid,
  so that a cell can also go down;
- the **output gate** o, "what to focus on": how much of each cell is shown as h.

    i = sigmoid(W_i x + R_i h + b_i)
    f = sigmoid(W_f x + R_f h + b_f)
    g =    tanh(W_g x + R_g h + b_g)
    o = sigmoid(W_o x + R_o h + b_o)
    c' = f * c + i * g
    h' = o * tanh(c')

The self-connection of the cell, c' = f * c + ..., is the *constant error carousel*: along it
dc'/dc = f. While the forget gate is open (f near 1), a gradient goes back over any number of steps
and is neither squashed nor mixed with others, so it does not vanish.

Sources: Hochreiter & Schmidhuber 1997, Neural Computation 9(8), for the cell and the carousel;
Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10), for the forget gate; Sak, Senior &
Beaufays 2014, Interspeech, for the projection.

Shapes: T steps, B rows (sequences of the batch), I inputs, H hidden units, P outputs (H, or the
size of the projection), L layers, D directions. The order of gates is i, f, g, o (GRU: r, z, n).

`core/cell.py` defines what a cell is; `cells/` has the LSTM, the GRU and the plain recurrent
network. `core/walk.py` runs any cell through time, forward and backward. Layers call `stack`,
`forward`, `step` and `backward` of `core/stack.py`. Every compiled build has the functions of this
module, with the same signatures: `fastlstm.kernels.arguments.Kernels`.
"""

from fastlstm.kernels.reference.cells.gru import pack_gru
from fastlstm.kernels.reference.cells.lstm_variants import pack_lstm
from fastlstm.kernels.reference.cells.rnn import pack_rnn
from fastlstm.kernels.reference.core.activations import activate, activation_slope, sigmoid, tanh
from fastlstm.kernels.reference.core.product import linear, pack, weight_gradient
from fastlstm.kernels.reference.core.stack import backward, forward, new_sums, stack, step
from fastlstm.kernels.reference.core.updates import update

__all__ = [
    "activate",
    "activation_slope",
    "backward",
    "forward",
    "linear",
    "new_sums",
    "pack",
    "pack_gru",
    "pack_lstm",
    "pack_rnn",
    "sigmoid",
    "stack",
    "step",
    "tanh",
    "update",
    "weight_gradient",
]
