#!/usr/bin/env bash
# Builds the native core with GCC's sanitizers, into a copy of the package, and runs tests of it. A finding ends the
# process, and with it the run.
#   run.sh PYTHON SANITIZERS RUNTIME TESTS...    for example: run.sh python address,undefined asan tests/test_binding.py
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1 sanitizers=$2 runtime=$3
shift 3

library=$(g++ -print-file-name="lib$runtime.so" 2>/dev/null || true)
if [ ! -f "$library" ]; then
  echo "skipped: -fsanitize=$sanitizers needs g++ and its lib$runtime (Debian and Ubuntu: apt install g++)"
  exit 0
fi
package=$PWD/build/sanitized/$sanitizers
# One instruction set is enough: all of them walk over memory by the same code.
CXX=g++ EXTRAP_CUDA=off EXTRAP_ISAS=portable EXTRAP_SANITIZE=$sanitizers "$python" setup.py --quiet build --build-lib "$package"

# Some ThreadSanitizers do not start where Linux has put something at the addresses that they take.
not_random=$(setarch -R echo setarch -R 2>/dev/null || true)
export PYTHONPATH=$package:$PWD
# Python's own allocator would hide what is done to the memory of its objects.
export PYTHONMALLOC=malloc
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
# The mutexes that it reports are torch's: we have none.
export TSAN_OPTIONS="halt_on_error=1 report_mutex_bugs=0 suppressions=$PWD/tests/sanitizers/thread.supp"
# Python is not instrumented, so that the runtime must be loaded before it; and libstdc++ with it, or the runtime does not
# find what it replaces. Not `python -m pytest`, which would find the package of the checkout first. What a sanitizer
# writes to its file descriptor must not be captured: it would be lost with the process.
exec $not_random env LD_PRELOAD="$library $(g++ -print-file-name=libstdc++.so.6)" \
  "$(dirname "$python")/pytest" -n auto --capture=sys "$@"
