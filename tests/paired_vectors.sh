#!/usr/bin/env bash
# The kernel and layer tests of the build for AVX-512, compiled for a processor with AVX2 alone: each
# vector of 64 bytes is a pair of registers. bash tests/paired_vectors.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export FASTLSTM_PAIRS=1 FASTLSTM_REQUIRE_EXT=1
python setup.py --quiet build --build-base build/paired --build-lib build/paired/lib
PYTHONPATH=build/paired/lib python -m pytest -p no:cacheprovider -k avx512 tests/kernels tests/layers "$@"
