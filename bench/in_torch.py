"""fastlstm within torch beside torch's own layers: `python -m bench.in_torch`.

For `torch.nn.LSTM`, for the layer of `fastlstm.torch` with the same weights, and for `fl.LSTM`
itself: a call without gradients (`inference`), and forward and backward for the gradients of x and
of all weights (`training`), once with the same weights in every call, and once with new ones, as
after an optimizer's step (`new weights`; for `fl.LSTM` too). The last column is what the way
through torch takes beyond the library's own call, in µs a call. Float32, one core, hot turns.
"""

import argparse
import sys
from collections.abc import Callable

from bench.limits import limit
from bench.turns import medians, protocol

CASES = (  # T, B, I, H, and how many times as fast as torch's own layer it is to be
    (1, 1, 128, 128, None),
    (100, 1, 128, 128, 1.5),
    (100, 16, 32, 64, 1.15),
    (100, 8, 64, 128, 1.05),
)
TOLERANCE = 1e-4


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.in_torch", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="a row; default: 10")
    seconds = parser.parse_args().seconds
    limit(1)
    how = protocol(cold=False)
    print(how.describe())
    print(f"{'T, B, I, H':<18}{'':<13}{'torch µs':>10}{'door':>10}{'library':>10}", end="")
    print(f"{'times':>8}{'wanted':>8}{'beyond':>8}")
    missed = False
    for *shape, wanted in CASES:
        for mode, runs in calls(*shape).items():
            found = medians(runs, how, seconds, 3)
            times = found["torch"] / found["door"]
            line = f"{', '.join(map(str, shape)):<18}{mode:<13}"
            line += "".join(f"{1e6 * found[name]:>10.1f}" for name in ("torch", "door", "library"))
            line += f"{times:>8.2f}{wanted or '':>8}"
            line += f"{1e6 * (found['door'] - found['library']):>8.1f}"
            under = wanted is not None and mode != "new weights" and times < wanted
            missed |= under
            print(line + "   under" * under, flush=True)
    return int(missed)


def calls(T: int, B: int, I: int, H: int) -> dict[str, dict[str, Callable[[], object]]]:
    """By mode, a call of each layer; all have the same weights and give the same results."""
    # Only now that this process is held to its core: these import NumPy.
    import copy

    import numpy as np
    import torch

    import fastlstm as fl
    import fastlstm.torch

    fl.set_num_threads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(I, H)
    door = fastlstm.torch.replace(copy.deepcopy(theirs))
    ours = fl.LSTM(I, H)
    ours.load_state_dict(theirs.state_dict())
    x, dy = torch.randn(T, B, I, requires_grad=True), torch.randn(T, B, H)
    array, gradient = x.detach().numpy(), dy.numpy()

    def infer(layer: torch.nn.Module) -> object:
        with torch.no_grad():
            return layer(x)[0]

    def train(layer: torch.nn.Module) -> list[torch.Tensor]:
        y, _ = layer(x)
        return list(torch.autograd.grad(y, [x, *layer.parameters()], dy))

    def change(layer: torch.nn.Module) -> object:
        with torch.no_grad():
            torch._foreach_mul_(list(layer.parameters()), -1.0)
        return train(layer)

    def our_training() -> list[np.ndarray]:
        _, tape = ours.forward(array)
        grads = ours.backward(tape, gradient)
        return [grads.x, *grads.params.values()]

    def our_change() -> list[np.ndarray]:
        ours.assign({name: -value for name, value in ours.parameters().items()})
        return our_training()

    expected = train(theirs)
    for results in (train(door), map(torch.from_numpy, our_training())):
        for result, other in zip(results, expected, strict=True):
            if (result - other).abs().max() > TOLERANCE * other.abs().max():
                raise SystemExit("the gradients DIFFER")
    return {
        "inference": {
            "torch": lambda: infer(theirs),
            "door": lambda: infer(door),
            "library": lambda: ours(array),
        },
        "training": {
            "torch": lambda: train(theirs),
            "door": lambda: train(door),
            "library": our_training,
        },
        "new weights": {
            "torch": lambda: change(theirs),
            "door": lambda: change(door),
            "library": our_change,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
