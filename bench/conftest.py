"""The builds, as the tests have them, and the commands."""

import os
import subprocess
import sys

from bench.origin import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from builds import kernels as kernels


def run_module(name, *arguments, **variables):
    """Output of `python -m bench.NAME`; in a process of its own, since it changes its cores."""
    command = [sys.executable, "-m", f"bench.{name}", *map(str, arguments)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
