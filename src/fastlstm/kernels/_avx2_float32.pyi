from fastlstm.kernels.reference import *
