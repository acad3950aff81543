"""The threads of this library as `threadpoolctl` lists and limits them.

threadpoolctl knows libraries by controllers that are registered with it. It may be imported before
fastlstm, or after; fastlstm does not import it. So a finder on `sys.meta_path` waits for its
import: without one, ``threadpool_limits(1)`` would limit fastlstm or not by the order of imports.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from fastlstm import kernels
from fastlstm._version import __version__
from fastlstm.threads import get_num_threads, set_num_threads

PACKAGE = __name__.partition(".")[0]
CONTROLLERS = "threadpoolctl"
POOL = "_pool"  # the compiled module that has the threads


def register_when_imported() -> None:
    """Register the pool with threadpoolctl: now, or as soon as a program imports it."""
    sys.meta_path.insert(0, _Finder())
    if CONTROLLERS in sys.modules:
        register(sys.modules[CONTROLLERS])


def register(threadpoolctl: Any) -> None:
    """Register the pool; without compiled kernels there is none, and nothing to register."""
    pool = PathFinder.find_spec(POOL, kernels.__path__)
    if pool is None or pool.origin is None or not hasattr(threadpoolctl, "register"):
        return
    own = os.path.realpath(pool.origin)

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """The number of threads of `fastlstm.get_num_threads` and `set_num_threads`."""

        user_api = internal_api = PACKAGE
        filename_prefixes = (POOL,)
        check_symbols = (f"PyInit_{POOL}",)

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            if num_threads != get_num_threads():  # after setting it, all calls prepare anew
                set_num_threads(num_threads)

        def get_version(self) -> str:
            return __version__

        def set_additional_attributes(self) -> None:
            if os.path.realpath(self.filepath) != own:
                self.dynlib = None  # of another package: without symbols, it is passed over

    threadpoolctl.register(Controller)


class _Finder:
    """Finds threadpoolctl as the finders after it do, with a loader that registers the pool."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != CONTROLLERS:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Another loader, after which the pool is registered."""

    def __init__(self, loader: Any):
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        register(module)
