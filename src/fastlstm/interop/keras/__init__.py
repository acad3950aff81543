"""Models of Keras: its files, and the arrays of its layers. Keras itself is not needed."""

from fastlstm.interop.keras.files import layers as layers
from fastlstm.interop.keras.files import read as read
from fastlstm.interop.keras.out import to_arrays as to_arrays
