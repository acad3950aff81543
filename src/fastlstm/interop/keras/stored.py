"""Where the arrays of each layer lie in Keras' files."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fastlstm.interop.keras.config import Layer
from fastlstm.interop.keras.hdf5 import MOST_DEPTH, Tree
from fastlstm.interop.keras.weights import join_keras1

Arrays = list[np.ndarray]


class Stored(Protocol):
    """The arrays of a file."""

    def arrays(self, layer: Layer) -> Arrays:
        """Those of a layer, in Keras' order; of both directions one after another."""
        ...

    def recurrent(self) -> dict[str, list[Arrays]]:
        """By name, the arrays of each direction of every recurrent layer."""
        ...


class InVars:
    """Files since Keras 2.12: each object has a group `vars` of arrays that are numbered."""

    def __init__(self, tree: Tree):
        self.tree = tree
        names = tree.names()
        roots = ("layers", "_layer_checkpoint_dependencies")  # the second of Keras 2
        self.roots = [name for name in roots if name in names]

    def arrays(self, layer: Layer) -> Arrays:
        parts: dict[str, tuple[tuple[str, ...], ...]] = {
            "Bidirectional": (("forward_layer", "cell"), ("backward_layer", "cell")),
            "TimeDistributed": (("layer",),),
            "Dense": ((),),
            "Embedding": ((),),
        }
        for root in self.roots:
            found = [
                array
                for part in parts.get(layer.kind, (("cell",),))
                for array in self._numbered((root, layer.place, *part))
            ]
            if found:
                return found
        return []

    def recurrent(self) -> dict[str, list[Arrays]]:
        found: dict[str, list[Arrays]] = {}
        for path in sorted(self._cells((), 0)):
            *above, last = path[:-1] or ("",)
            if last == "backward_layer":
                continue
            arrays = [self._numbered(path)]
            if last == "forward_layer":
                arrays.append(self._numbered((*above, "backward_layer", "cell")))
                path = (*above, "cell")
            found["/".join(path[:-1])] = arrays
        return found

    def _cells(self, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
        """The paths of cells of recurrent layers: groups `cell` with arrays."""
        for name in self.tree.names(*path):
            if depth < MOST_DEPTH - 2 and not name.isdigit() and name not in ("optimizer", "vars"):
                inner = (*path, name)
                if name == "cell" and self.tree.names(*inner, "vars"):
                    yield inner
                else:
                    yield from self._cells(inner, depth + 1)

    def _numbered(self, path: tuple[str, ...]) -> Arrays:
        names = self.tree.names(*path, "vars")
        return [self.tree.array(*path, "vars", str(k)) for k in range(len(names))]


class ByName:
    """Files of Keras 1 and 2, and `.h5` files of Keras 3: a layer lists the names of its arrays."""

    def __init__(self, tree: Tree, root: tuple[str, ...]):
        self.tree, self.root = tree, root

    def arrays(self, layer: Layer) -> Arrays:
        return [array for _, array in self._named(layer.name)]

    def recurrent(self) -> dict[str, list[Arrays]]:
        found: dict[str, list[Arrays]] = {}
        for layer in self._list("layer_names", ()):
            named = self._named(layer)
            arrays = [array for _, array in named]
            if len(arrays) in (9, 12, 18, 24) and not any("kernel" in name for name, _ in named):
                count = 12 if len(arrays) % 12 == 0 else 9  # arrays of one direction
                both = arrays[:count], arrays[count:]
                found[layer] = [join_keras1(own) for own in both if own]
                continue
            starts = [k for k, (name, _) in enumerate(named) if _last(name) == "recurrent_kernel"]
            directions = []
            for start in starts:
                end = start + 1
                if end < len(named) and _last(named[end][0]) == "bias":
                    end += 1
                directions.append(arrays[max(start - 1, 0) : end])
            if directions:
                if len(directions) > 2:
                    raise ValueError(
                        f"{layer}: expected one layer, got {len(directions)} directions"
                    )
                found[layer] = directions
        return found

    def _named(self, layer: str) -> list[tuple[str, np.ndarray]]:
        """The arrays of a layer with their names."""
        at = tuple(layer.split("/"))
        if not self.tree.has(*self.root, *at):
            return []
        return [
            (name, self.tree.array(*self.root, *at, *name.split("/")))
            for name in self._list("weight_names", at)
        ]

    def _list(self, name: str, path: tuple[str, ...]) -> list[str]:
        """An attribute that is a list of text; a long one is in parts: name0, name1, ..."""
        found: list[str] = []
        parts = [name] if self._has(name, path) else (f"{name}{k}" for k in range(1000))
        for part in parts:
            value = self.tree.attribute(part, *self.root, *path)
            if value is None:
                break
            if isinstance(value, list):
                found += value
            elif np.size(value):
                raise ValueError(
                    f"{name} of {'/'.join(path):.60}: expected names, got {value!r:.60}"
                )
        return found

    def _has(self, name: str, path: tuple[str, ...]) -> bool:
        return self.tree.attribute(name, *self.root, *path) is not None


def _last(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]
