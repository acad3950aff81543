"""The table of builds: one kernel source, compiled for each instruction set and dtype."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("FASTLSTM_DEBUG") == "1"
SANITIZE = os.environ.get("FASTLSTM_SANITIZE", "")
PAIRS = os.environ.get("FASTLSTM_PAIRS") == "1"
REQUIRED = os.environ.get("FASTLSTM_REQUIRE_EXT") == "1"

MSVC = sys.platform == "win32"

# For each build: the bytes of a vector register, the number of rows of a tile (of 4 registers
# each), and the compiler flags in addition to those of the baseline.
if platform.machine().lower() in ("x86_64", "amd64") and not MSVC:
    AVX2 = ["-mavx2", "-mfma"]
    AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"]
    if PAIRS:  # The build for AVX-512 without its instructions, for tests on other processors.
        AVX512 = [*AVX2, "-Wno-psabi"]
    BUILDS = {
        "baseline": (16, 3, []),
        "avx2": (32, 3, AVX2),
        "avx512": (64, 6, [*AVX512, "-mprefer-vector-width=512"]),
    }
else:
    BUILDS = {"baseline": (16, 6, [])}

if MSVC:
    FLAGS, LINK_FLAGS, SMALL = ["/O2"], [], ["/O1"]
else:
    FLAGS = ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
    FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    FLAGS += [] if DEBUG else ["-fno-asynchronous-unwind-tables"]
    if sys.platform == "linux" and not DEBUG:  # GCC's names
        # Loops that matter are written with vectors. Copies of other loops for special cases are
        # 7 % of the code and take no less time.
        FLAGS += ["-fvect-cost-model=very-cheap", "-fno-ipa-cp-clone", "-fno-unswitch-loops"]
        FLAGS += ["-fno-split-loops", "-fno-version-loops-for-strides", "-fno-loop-unroll-and-jam"]
        FLAGS += ["-fno-tree-slp-vectorize", "-Wno-unused-function"]
        # The limits of -O2 for inlining, and no padding before functions and jumps: 4 % less.
        FLAGS += ["--param=max-inline-insns-single=70", "--param=max-inline-insns-auto=15"]
        FLAGS += ["--param=inline-min-speedup=30", "-fno-align-functions", "-fno-align-jumps"]
    SMALL = [] if DEBUG else ["-Os"]
    LINK_FLAGS = [] if DEBUG or sys.platform == "darwin" else ["-s"]
if SANITIZE:
    FLAGS.append(f"-fsanitize={SANITIZE}")
    LINK_FLAGS = [f"-fsanitize={SANITIZE}"]

DIRECTIVES = {
    "language_level": 3,
    "binding": False,  # functions of Cython's own type would need a tenth more code
    "embedsignature": True,
    "embedsignature.format": "clinic",  # the format that inspect.signature reads
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "freethreading_compatible": True,  # the import leaves the interpreter lock off, where it is off
}


# Functions that a model calls once, or that read rare arguments.
RARE = "pack pack_lstm pack_gru pack_rnn stack new_sums weight_gradient update activate"
RARE += " activation_slope _read_activation _read_weights _numbers _matrix _extent _are_drawn"
RARE += " _read_masks _read_walk_of _read_rows _is_out _is_step_out _strides_overlap"
# Prefixes of Cython's own functions that a call needs only where it raises.
RAISING = "Raise raise Reject ErrFetch ErrRestore GetException PyErr_ Import"


def make_small(path):
    """Have a compiler of GCC's kind make small code of rare functions, in Cython's C code.

    And leave out the lines of this code from tracebacks. Together, it is a sixth less.
    """
    code = Path(path).read_text(encoding="utf-8")
    rare = rf".*_float\d\d_\d*(?:{RARE.replace(' ', '|')})\("
    raising = rf".*__Pyx_+(?:{RAISING.replace(' ', '|')})\w*\("
    small = re.sub(
        rf"^static (?={rare}|{raising})", "__attribute__((cold)) static ", code, flags=re.MULTILINE
    )
    small = re.sub(r'__Pyx_AddTraceback\("[^;]*;', "", small)
    if small != code:
        Path(path).write_text(small, encoding="utf-8")


def extension(name, source, macros=(), flags=()):
    """The extension `name`, with its C code in its own folder."""
    made = Extension(
        f"fastlstm.kernels.{name}",
        [f"src/fastlstm/kernels/{source}"],
        extra_link_args=LINK_FLAGS,
        depends=["setup.py"],
    )
    (made,) = cythonize(
        made,
        build_dir=f"build/{'debug' if DEBUG else 'cython'}/{name}",
        compiler_directives=DIRECTIVES,
        quiet=True,
    )
    if source == "_kernels.pyx" and not (MSVC or DEBUG):
        make_small(made.sources[0])
    # Set after cythonize, which gives all extensions of one source the macros and flags of the
    # first, and forgets `optional`.
    made.optional = not REQUIRED
    made.define_macros = [
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        *macros,
    ]
    made.include_dirs = [numpy.get_include()]
    made.extra_compile_args = [*FLAGS, *flags]
    return made


class BuildIfPossible(build_ext):
    """A build that succeeds without a compiler; fastlstm then runs on its reference.

    The package keeps a record of the reasons, which it shows: see kernels/not_compiled.py.
    """

    def run(self):
        self.reasons = {}
        super().run()
        record = Path(self.get_ext_fullpath("fastlstm.kernels._cpu")).with_name("_not_compiled.txt")
        record.unlink(missing_ok=True)  # of an earlier build in this folder
        if self.reasons:
            self.mkpath(str(record.parent))
            lines = [f"{name}: {reason}\n" for name, reason in self.reasons.items()]
            record.write_text("".join(lines), encoding="utf-8")

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            if REQUIRED:
                raise
            why = reason(error)
            self.reasons[ext.name.rpartition(".")[2]] = why
            print(f"fastlstm: {ext.name} was not compiled: {why}", file=sys.stderr)


def reason(error):
    """What was missing, in a line, from an error of setuptools."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, OSError):
            return f"no C compiler ({cause.filename}: {cause.strerror})"
        if isinstance(cause, subprocess.CalledProcessError):
            text = first_error(cause.cmd) or f"{cause.cmd[0]} failed with status {cause.returncode}"
        cause = cause.__cause__ or cause.__context__
    if "Python.h" in text:
        return (
            "Python.h was not found; it comes with the headers of Python (Debian, Ubuntu: "
            "python3-dev, Fedora: python3-devel)"
        )
    return " ".join(text.split())


def first_error(command):
    """The first error of a compiler; run again, since it wrote the error to the terminal."""
    said = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return next((line for line in (said.stdout + said.stderr).splitlines() if "error" in line), "")


def extensions():
    yield extension("_cpu", "_cpu.pyx", [("FASTLSTM_PAIRS", int(PAIRS))], SMALL)
    yield extension("_pool", "_pool.pyx", flags=SMALL)
    for name, (vector_bytes, tile, flags) in BUILDS.items():
        for dtype in ("float32", "float64"):
            macros = [("VEC_BYTES", vector_bytes), ("TILE", tile), (f"FASTLSTM_{dtype.upper()}", 1)]
            yield extension(f"_{name}_{dtype}", "_kernels.pyx", macros, flags)


setup(
    ext_modules=list(extensions()),
    cmdclass={"build_ext": BuildIfPossible},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
