"""The embedding layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import (
    check_shape,
    memory_for,
    no_memory_for,
    quiet,
    read_array,
    read_dtype,
    read_generator,
    read_index,
    read_integers,
    read_size,
)
from fastlstm.kernels.arguments import kept
from fastlstm.module import (
    Gradients,
    Module,
    Output,
    Parameters,
    Tape,
    check_tape,
    describe_backward,
)


@dataclass(slots=True, eq=False)
class EmbeddingTape(Tape):
    indices: np.ndarray


class Embedding(Module):
    """A table of vectors: y = weight[x].

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        The number of vectors, and the length of each.
    padding_idx : int, optional
        The index whose vector is not learned: zero at first, and with a gradient of zero. A
        negative one counts from the end.
    weight : array (num_embeddings, embedding_dim), optional
        The initial values, of any dtype; they are copied. The vector at `padding_idx` is kept as it
        is, as in torch.
    dtype : float32 or float64
    rng : None, seed or Generator
        Source of the initial values, which are N(0, 1) as in torch.nn.Embedding.

    Attributes
    ----------
    weight : array (num_embeddings, embedding_dim)
    padding_idx : int or None
        0 to num_embeddings - 1.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> words = fl.Embedding(9, 3, padding_idx=0, rng=0)
    >>> words([0, 8])[0]
    array([0., 0., 0.], dtype=float32)
    """

    acts_on_steps = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        weight: Any = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.num_embeddings = read_size("num_embeddings", num_embeddings)
        self.embedding_dim = read_size("embedding_dim", embedding_dim)
        self.dtype = read_dtype("dtype", dtype)
        if padding_idx is not None:
            padding_idx = read_index("padding_idx", padding_idx, self.num_embeddings)
        self.padding_idx = padding_idx
        shape = (self.num_embeddings, self.embedding_dim)
        generator = read_generator("rng", rng)
        with memory_for("num_embeddings, embedding_dim", shape):
            if weight is None:
                values = generator.standard_normal(shape).astype(self.dtype)
                if self.padding_idx is not None:
                    values[self.padding_idx] = 0
            else:
                weight = read_array("weight", weight, self.dtype)
                check_shape("weight", weight, *shape)
                values = np.array(weight, order="C", subok=False)
        self._parameters = Parameters({"weight": values})

    def __call__(self, x: Any) -> np.ndarray:
        """Look up vectors.

        Parameters
        ----------
        x : integer array of any shape
            Indices from 0 to num_embeddings - 1.

        Returns
        -------
        y : array (..., embedding_dim), with the axes of x first

        Raises
        ------
        ValueError
            An index is negative or too large.
        TypeError
            x does not hold integers.
        """
        return self._look_up(self._read(x))

    def forward(self, x: Any) -> tuple[np.ndarray, EmbeddingTape]:
        """Look up vectors as a call does, and return a tape.

        Parameters
        ----------
        x : integer array of any shape

        Returns
        -------
        y : array (..., embedding_dim), with the axes of x first
        tape : EmbeddingTape
            The argument of one `backward`.
        """
        indices = kept(self._read(x))
        return self._look_up(indices), EmbeddingTape(self, indices)

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of `weight`, which is zero at `padding_idx`. Indices have none."""
        tape = check_tape(tape, EmbeddingTape, self)
        dy = read_array("dy", dy, self.dtype)
        check_shape("dy", dy, *tape.indices.shape, self.embedding_dim)
        tape.claim()
        dweight = np.zeros((self.num_embeddings, self.embedding_dim), self.dtype)
        # Equal indices are brought together in a stable order, so that sums are reproducible.
        order = np.argsort(tape.indices, axis=None, kind="stable")
        ordered = tape.indices.ravel()[order]
        differs = np.ones(len(ordered), np.bool_)  # from the index before
        np.not_equal(ordered[1:], ordered[:-1], out=differs[1:])
        (starts,) = differs.nonzero()
        rows = dy.reshape(-1, self.embedding_dim)[order]
        with quiet():
            dweight[ordered[starts]] = np.add.reduceat(rows, starts, axis=0)
        if self.padding_idx is not None:
            dweight[self.padding_idx] = 0
        return Gradients(params={"weight": dweight})

    def _output(self, before: Output) -> Output:
        return before._replace(features=self.embedding_dim, dtype=self.dtype, reverse=(False,))

    def _look_up(self, indices: np.ndarray) -> np.ndarray:
        try:
            return self._parameters["weight"].take(indices, axis=0)
        except MemoryError as error:
            raise no_memory_for("x", (*indices.shape, self.embedding_dim)) from error

    def _read(self, x: Any) -> np.ndarray:
        indices = read_integers("x", x)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_embeddings:
            raise ValueError(
                f"x: expected indices from 0 to {self.num_embeddings - 1}, "
                f"got {indices.min()} to {indices.max()}"
            )
        return indices

    def __repr__(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{padding})"
