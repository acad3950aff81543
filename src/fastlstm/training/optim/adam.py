"""Adam and AdamW."""

from collections.abc import Sequence

import numpy as np

from fastlstm.checks import read_flag, read_number
from fastlstm.kernels.arguments import Rule
from fastlstm.training.optim.base import Optimizer


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    m ← β1 m + (1 - β1) g and v ← β2 v + (1 - β2) g², both from zero; at step t
    p ← p - lr · (m / (1 - β1ᵗ)) / (√(v / (1 - β2ᵗ)) + ε).

    Parameters
    ----------
    lr : float
        Learning rate.
    betas : (float, float)
        β1 and β2, in [0, 1).
    eps : float
        ε.
    weight_decay : float
        λ: adds λ · p to the gradient.
    freeze : tuple of str
        Prefixes of names of parameters that no step changes, as ("0.",) for the first layer of a
        Sequential.
    skip_nonfinite : bool
        Whether a step on gradients with an infinity or NaN is skipped, and counted in the attribute
        `skipped`, instead of refused.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> layer = fl.Linear(2, 1, bias=False, dtype="float64", rng=0)
    >>> before, grads = layer.weight, fl.Gradients(params={"weight": np.array([[3.0, -0.5]])})
    >>> fl.optim.Adam(lr=0.1).step(layer, grads)
    >>> (layer.weight - before).round(6).tolist()
    [[-0.1, 0.1]]
    """

    _fixed: tuple[str, ...] = ("betas", "eps")
    _moment_names = ("mean", "square")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        freeze: Sequence[str] = (),
        skip_nonfinite: bool = False,
    ):
        super().__init__(lr, weight_decay, freeze, skip_nonfinite)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {betas!r}")
        self.betas = (
            read_number("betas[0]", betas[0], 0, 1, open_above=True),
            read_number("betas[1]", betas[1], 0, 1, open_above=True),
        )
        self.eps = read_number("eps", eps, 0, np.inf, open_above=True)

    def _rule(self) -> Rule:
        (beta1, beta2), step = self.betas, self.steps + 1
        # √(v / k) + ε = (√v + ε √k) / √k
        root = (1 - beta2**step) ** 0.5
        lr = self.lr * root / (1 - beta1**step)
        return Rule(lr, self.weight_decay, beta1=beta1, beta2=beta2, eps=self.eps * root)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    p ← (1 - lr · λ) p before the step of `Adam` on gradients without decay.

    Parameters
    ----------
    lr, betas, eps, freeze, skip_nonfinite
        As of `Adam`.
    weight_decay : float
        λ.
    decay_all : bool
        Whether every parameter decays. Otherwise those of one axis do not: biases, gains of layer
        norm, peepholes and learned initial states.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        decay_all: bool = False,
        freeze: Sequence[str] = (),
        skip_nonfinite: bool = False,
    ):
        super().__init__(lr, betas, eps, weight_decay, freeze=freeze, skip_nonfinite=skip_nonfinite)
        self.decay_all = read_flag("decay_all", decay_all)

    def _rule(self) -> Rule:
        return super()._rule()._replace(decay=0.0, shrink=1 - self.lr * self.weight_decay)

    def _decays(self, parameter: np.ndarray) -> bool:
        return self.decay_all or parameter.ndim > 1
