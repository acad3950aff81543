#!/usr/bin/env bash
# The kernel tests with every kernel built under the address sanitizer: bash tests/address_sanitizer.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export FASTLSTM_SANITIZE=address FASTLSTM_REQUIRE_EXT=1
python setup.py --quiet build --build-base build/sanitized --build-lib build/sanitized/lib
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
    PYTHONPATH=build/sanitized/lib PYTHONMALLOC=malloc \
    python -m pytest -p no:cacheprovider tests/kernels tests/layers/test_{lstm,gru_rnn,call_forms}.py "$@"
