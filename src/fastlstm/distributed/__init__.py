"""Training by many processes: what they tell one another, over a communicator of MPI."""

from fastlstm.distributed.ranks import RankError

__all__ = ["RankError"]
