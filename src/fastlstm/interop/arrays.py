"""`from_arrays`: the recurrent layer among named arrays."""

from collections.abc import Mapping
from typing import Any

from fastlstm.interop.reading import Hints


def from_arrays(mapping: Mapping[str, Any], prefix: str | None = None) -> Any:
    raise NotImplementedError


def read_layer(arrays: Mapping[str, Any], hints: Hints) -> Any:
    raise NotImplementedError
