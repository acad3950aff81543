"""One adapter an engine; `PEERS` holds those that fastlstm is compared with."""

from bench.peers.base import CannotDoError, Peer
from bench.peers.jax_scan import Jax
from bench.peers.mnn_model import Mnn
from bench.peers.numba_loop import Numba
from bench.peers.onnx_runtime import BoundOnnxRuntime, OnnxRuntime
from bench.peers.open_vino import BoundOpenVino, OpenVino
from bench.peers.ours import FastLSTM, others
from bench.peers.pytorch import PaddedTorch, Torch, TorchEval
from bench.peers.thinc_lstm import Thinc

ALL = (
    Torch,
    TorchEval,
    PaddedTorch,
    OnnxRuntime,
    BoundOnnxRuntime,
    OpenVino,
    BoundOpenVino,
    Mnn,
    Jax,
    Numba,
    Thinc,
)
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in ALL}

__all__ = ["PEERS", "CannotDoError", "FastLSTM", "Peer", "installed", "others"]


def installed(asked: list[str] | None) -> tuple[list[str], dict[str, str]]:
    """Names of the peers to run, and the reason for each that cannot."""
    if asked is None:
        asked = [name for name, peer in PEERS.items() if peer.by_default]
    unknown = [name for name in asked if name not in PEERS]
    if unknown:
        raise ValueError(f"peers: expected some of {', '.join(PEERS)}, got {', '.join(unknown)}")
    reasons = {name: PEERS[name].available() for name in asked}
    missing = {name: reason for name, reason in reasons.items() if reason}
    return [name for name in reasons if name not in missing], missing
