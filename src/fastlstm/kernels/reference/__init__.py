"""The NumPy twin: the LSTM as a person reads it, and what runs where nothing was compiled.

A plain recurrent network rewrites its whole memory at every step, so a gradient sent back through
T steps is multiplied T times by the recurrent weights and vanishes or explodes. The LSTM keeps its
memory in a *cell state* c instead, which is only ever scaled and added to, under the control of
gates, each a vector in (0, 1) computed from the input x and the previous output h:

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
dc'/dc = f, so while the forget gate is open (f near 1) an error travels back over any number of
steps without being squashed or mixed. That is why it does not vanish.

Sources: Hochreiter & Schmidhuber 1997, Neural Computation 9(8), for the cell and the carousel;
Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10), for the forget gate; Sak, Senior &
Beaufays 2014, Interspeech, for the projection.

Every compiled build offers the functions of this module with the same signatures. Shapes: T steps,
B rows (sequences of the batch), I inputs, H hidden units, P outputs (H, or the projection's size).
Gates stand in the order i, f, g, o (GRU: r, z, n). Arguments shared by all of them:

rows : int array or None
    The rows to work on, longest first; None for all of them.
live : int [T] array or None
    ``rows[:live[t]]`` have not ended at step t; None when no row ends early.
resets : bool [T, B] array or None
    Where true, the row's state is cut to zero before step t.
reverse : bool
    Walk the steps from last to first.
threads : int
    How many may share the work; an LSTM's walk can be shared only without projection. Here one
    does it all.
"""

from fastlstm.kernels.reference.activations import (
    activate,
    activation_slope,
    sigmoid,
    tanh,
)
from fastlstm.kernels.reference.gru import (
    gru_backward,
    gru_forward,
    gru_general_forward,
    pack_gru,
)
from fastlstm.kernels.reference.lstm import (
    lstm_backward,
    lstm_call,
    lstm_call_back,
    lstm_forward,
    pack_gates,
)
from fastlstm.kernels.reference.lstm_general import lstm_general_backward, lstm_general_forward
from fastlstm.kernels.reference.product import pack, product, weight_gradient
from fastlstm.kernels.reference.rnn import rnn_backward, rnn_forward

__all__ = [
    "activate",
    "activation_slope",
    "gru_backward",
    "gru_forward",
    "gru_general_forward",
    "lstm_backward",
    "lstm_call",
    "lstm_call_back",
    "lstm_forward",
    "lstm_general_backward",
    "lstm_general_forward",
    "pack",
    "pack_gates",
    "pack_gru",
    "product",
    "rnn_backward",
    "rnn_forward",
    "sigmoid",
    "tanh",
    "weight_gradient",
]
