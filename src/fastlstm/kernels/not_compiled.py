"""Why extensions were not compiled, and the command that compiles them.

`setup.py` records the reasons in a file beside this one.
"""

import json
import shlex
from importlib import metadata
from pathlib import Path

RECORD = Path(__file__).with_name("_not_compiled.txt")  # lines "extension: reason"
CHECKOUT = Path(__file__).parents[3]  # the folder of setup.py, where the package runs from source
INSTALL = "python -m pip install"
AGAIN = f"{INSTALL} --force-reinstall --no-deps --no-cache-dir"  # not from a cached wheel


def reason(build: str | None = None) -> str:
    """Return what was missing for `build`, or for the first extension that failed."""
    try:
        lines = RECORD.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "they were never built"
    reasons = dict(line.partition(": ")[::2] for line in lines)
    named = [name for name in reasons if build is not None and name.startswith(f"_{build}_")]
    return reasons[named[0]] if named else next(iter(reasons.values()), "unknown reason")


def advice() -> str:
    """Return sentences that say why the kernels are missing, and how to compile them."""
    return f"Why: {reason()}. Once that is mended, run `{command()}`."


def command() -> str:
    """Return the shell command that compiles the kernels of this installation."""
    if (CHECKOUT / "setup.py").is_file():
        return f"{INSTALL} -e {shlex.quote(str(CHECKOUT))}"
    return f"{AGAIN} {_origin()}"


def _origin() -> str:
    """The arguments of pip that name the source from which this package was installed."""
    try:
        text = metadata.distribution("fastlstm").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    origin = json.loads(text or "{}")  # of PEP 610; none for a package of an index
    url = origin.get("url", ".whl")
    if url.endswith(".whl"):
        return "--no-binary fastlstm fastlstm"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if "subdirectory" in origin:
        url += f"#subdirectory={origin['subdirectory']}"
    return shlex.quote(url)
