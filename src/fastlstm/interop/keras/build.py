"""Modules of a chain of Keras' layers and their arrays."""

from typing import Any

import numpy as np

from fastlstm.interop.keras import activations, recurrent
from fastlstm.interop.keras.config import Layer, Version, inner_layer
from fastlstm.interop.keras.recurrent import MERGES, flag, is_recurrent, number
from fastlstm.interop.keras.stored import Stored
from fastlstm.interop.reading import Hints
from fastlstm.interop.recurrent import dtype_of, make_linear
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.pool import Last, Pool
from fastlstm.layers.sequential import Sequential
from fastlstm.layers.steps.backwards import Backwards
from fastlstm.layers.steps.masking import Masking
from fastlstm.layers.steps.merge import Merge
from fastlstm.module import Module

POOLS = {"GlobalAveragePooling1D": "mean", "GlobalMaxPooling1D": "max"}


class Builder:
    """Makes one module after another, in the order of the chain."""

    def __init__(self, chain: list[Layer], stored: Stored, version: Version, hints: Hints):
        self.chain, self.stored, self.version, self.hints = chain, stored, version, hints
        self.modules: list[Module] = []
        self.features: int | None = None  # of the result so far, if known
        self.has_mask = False  # whether Keras' next layer gets a mask
        self.begin: int | None = None  # the first module within a Masking
        self.value = 0.0  # the mark of masked steps
        self.outputs: list[str] = []  # what recurrent layers within it return there

    def build(self) -> Any:
        """Return the model."""
        for place, layer in enumerate(self.chain):
            for key in ("quantization_config", "lora_rank"):
                if layer.config.get(key) is not None:
                    raise ValueError(f"{layer}: {key} has no counterpart here")
            self._add(layer, self.chain[place + 1 :])
        if self.begin is not None:
            inner = self.modules[self.begin :]
            same = len(set(self.outputs)) < 2
            outputs: Any = (self.outputs or ["repeat"])[0] if same else self.outputs
            self.modules[self.begin :] = [Masking(*inner, value=self.value, masked_output=outputs)]
        if not self.modules:
            raise ValueError("config: expected a layer that computes something, got none")
        return self.modules[0] if len(self.modules) == 1 else Sequential(*self.modules)

    def _add(self, layer: Layer, later: list[Layer]) -> None:
        kind = layer.kind
        if kind == "TimeDistributed":
            inner = inner_layer(layer, self.version)
            if inner.kind not in ("Dense", "Activation", "Dropout"):
                raise ValueError(f"{layer}: expected a Dense layer in it, got {inner.kind!r:.60}")
            if inner.kind == "Dense":
                self._add_dense(inner, self.stored.arrays(layer))
            else:
                self._add(inner, later)
        elif kind == "InputLayer":
            shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
            if isinstance(shape, list) and len(shape) > 2 and type(shape[-1]) is int:
                self.features = shape[-1]
        elif is_recurrent(layer):
            self._add_recurrent(layer)
        elif kind == "Dense" or (kind == "TimeDistributedDense" and self.version.major < 2):
            self._add_dense(layer, self.stored.arrays(layer))
        elif kind == "Embedding":
            self._add_embedding(layer, later)
        elif kind == "Masking":
            value = layer.config.get("mask_value", 0.0)
            self._begin_mask(layer, activations.read_number(layer, "mask_value", value))
        elif kind == "Dropout":
            if layer.config.get("noise_shape") is not None:
                raise ValueError(f"{layer}: noise_shape has no counterpart here")
            self.modules.append(Dropout(number(layer, "rate"), rng=0))
        elif kind == "Activation":
            self.modules += activations.after(layer, self.version)
        elif kind in ("ReLU", "LeakyReLU", "ELU", "Softmax", "ThresholdedReLU"):
            if kind == "Softmax" and self.has_mask:
                raise ValueError(f"{layer}: Softmax of masked steps has no counterpart here")
            self.modules.append(activations.of_layer(layer))
        elif kind in POOLS:
            self._add_pool(layer)
        else:
            raise ValueError(
                f"{layer}: this kind of layer has no counterpart here; interop.keras.layers gives "
                "the recurrent layers"
            )

    def _add_recurrent(self, layer: Layer) -> None:
        inner, merge = recurrent.directions_of(layer, self.version)
        if layer.kind == "Bidirectional" and merge not in MERGES:
            names = ", ".join(MERGES)
            raise ValueError(f"{layer}: merge_mode: expected one of {names}, got {merge!r:.60}")
        if flag(inner, "return_state"):
            raise ValueError(f"{layer}: return_state has no counterpart in a chain of layers")
        arrays = self.stored.arrays(layer)
        made = recurrent.of_layer(layer, arrays, self.version, self.hints)
        self._check_features(layer, made.input_size)
        keeps_steps = flag(inner, "return_sequences")
        if dropped := number(inner, "dropout"):
            self.modules.append(Dropout(dropped, rng=0))
        self.modules.append(Backwards(made) if flag(inner, "go_backwards") else made)
        if self.begin is not None:
            self.outputs.append(self._masked_output(layer, inner, merge, keeps_steps))
        if not keeps_steps:
            self.modules.append(Last())
            self.has_mask = False
        if merge not in ("", "concat"):
            self.modules.append(Merge(merge))
        self.features = made.hidden_size * (2 if merge == "concat" else 1)

    def _masked_output(self, layer: Layer, inner: Layer, merge: str, keeps_steps: bool) -> str:
        """What a recurrent layer returns at masked steps."""
        clears = flag(inner, "zero_output_for_mask")
        if merge:  # Bidirectional sets it, whatever was said
            clears = keeps_steps and self.version.clears_bidirectional
        if clears and not keeps_steps and self.has_mask:
            raise ValueError(f"{layer}: zero_output_for_mask needs return_sequences here")
        return "zero" if clears else "repeat"

    def _add_dense(self, layer: Layer, arrays: list[np.ndarray]) -> None:
        has_bias = flag(layer, "use_bias", True)
        if len(arrays) != 1 + has_bias:
            raise ValueError(f"{layer}: expected {1 + has_bias} arrays, got {len(arrays)}")
        units = layer.config.get("units")
        if arrays[0].ndim != 2 or not arrays[0].size or arrays[0].shape[1] != units:
            raise ValueError(
                f"{layer}: expected a kernel of {units!r:.40} columns, got {arrays[0].shape}"
            )
        I, O = arrays[0].shape
        if has_bias and arrays[1].shape != (O,):
            raise ValueError(f"{layer}: expected a bias of shape {(O,)}, got {arrays[1].shape}")
        self._check_features(layer, I)
        linear = make_linear(arrays[0].T, *arrays[1:])
        self.modules += [linear, *activations.after(layer, self.version)]
        self.features = O

    def _add_embedding(self, layer: Layer, later: list[Layer]) -> None:
        arrays = self.stored.arrays(layer)
        if number(layer, "dropout"):
            raise ValueError(f"{layer}: dropout has no counterpart here")
        shape = layer.config.get("input_dim"), layer.config.get("output_dim")
        if len(arrays) != 1 or arrays[0].shape != shape or not arrays[0].size:
            shapes = [array.shape for array in arrays]
            raise ValueError(f"{layer}: expected an array of shape {shape}, got {shapes}")
        if flag(layer, "mask_zero"):
            if self.modules:
                raise ValueError(f"{layer}: mask_zero: expected the Embedding as the first layer")
            if any(map(is_recurrent, later)):
                self._begin_mask(layer, 0.0)
            self.has_mask = True
        dtype = dtype_of({"embeddings": arrays[0]})
        count, size = len(arrays[0]), arrays[0].size // len(arrays[0])
        self.modules.append(Embedding(count, size, weight=arrays[0], dtype=dtype))
        self.features = size

    def _begin_mask(self, layer: Layer, value: float) -> None:
        if self.begin is not None or self.has_mask:
            raise ValueError(f"{layer}: expected one layer that makes a mask, got a second")
        self.begin, self.value, self.has_mask = len(self.modules), value, True

    def _add_pool(self, layer: Layer) -> None:
        if self.has_mask:
            raise ValueError(f"{layer}: pooling of masked steps has no counterpart here")
        if flag(layer, "keepdims") or layer.config.get("data_format") not in (
            None,
            "channels_last",
        ):
            raise ValueError(f"{layer}: expected channels_last without keepdims")
        batch_first = self.hints.get("batch_first", True)
        self.modules.append(Pool(POOLS[layer.kind], batch_first=batch_first))

    def _check_features(self, layer: Layer, features: int) -> None:
        if self.features not in (None, features):
            raise ValueError(
                f"{layer}: expected arrays for {self.features} features, got {features}"
            )
