"""The limits from which the work of a layer is divided among threads."""

from fastlstm.kernels.arguments import Thresholds

# Shapes below are (T, B, I, H). A ratio is the time of one thread divided by the time of two, on a
# virtual machine.

# Multiply-adds of one layer. Up to this many, one thread computes all of it: a second thread begins
# 20 to 130 µs after its invitation, which itself takes 8 to 25 µs. Ratios: 0.8 to 1.1 at
# (200, 1, 64, 64), 7 million; 1.0 at (20, 4, 64, 128), 8 million; 1.3 at (100, 1, 64, 128), 10
# million; 1.2 to 1.7 at (100, 1, 128, 128), 13 million.
PARALLEL_WORK = 8_000_000
# Rows for each thread. With fewer rows, threads divide the hidden units of every step instead of
# the rows: ratio 1.8 instead of 1.6 at (100, 32, 64, 128), and no better at 64 rows.
FEW_ROWS = 20
# Multiply-adds of one step. With fewer, the units are not divided, since threads wait for each
# other in every step. Ratios: 0.9 at (512, 1, 1, 40), 7 thousand; 1.3 at (30, 4, 32, 64), 98
# thousand.
STEP_WORK = 60_000
LANES = 16  # hidden units that each thread gets at least: the lanes of the widest registers

THRESHOLDS = Thresholds(PARALLEL_WORK, STEP_WORK, FEW_ROWS, LANES)
