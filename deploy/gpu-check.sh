#!/bin/sh
# Checks a host with an NVIDIA GPU in at most 8 minutes: training, TensorRT, parity with the CPU's answers, serving.
#
#   deploy/gpu-check.sh --wheels wheels --out gpu-check
#
# Needs Python 3.11 or newer with torch for CUDA, and no network. Writes OUT/gpu-check.md and OUT/gpu-check.json; what
# cannot run is skipped with its reason.
#
# --wheels DIR   what deploy/gpu-wheels.py has fetched; installed for this run only. Without it, what Python has is used
# --out DIR      folder of the results (gpu-check)
# --data DIR     images as `python -m training fit` reads them (drawn ones)
# --minutes N    for everything, 1 to 60 (8)
# --parts P ...  only these parts; the last option
# GPU_CHECK_ON_CPU=1  rehearse on a host without a GPU: the parts do what a CPU can
# PYTHON         the Python with torch (python3.12, python3.11 or python3, the first that has torch)
set -eu

usage() {
    sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0"
}

fail() {
    echo "gpu-check.sh: $1" >&2
    exit 2
}

wheels='' out=gpu-check data='' minutes=8 parts=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --parts) shift && parts=$* && break ;;
        --wheels | --out | --data | --minutes) [ $# -ge 2 ] || fail "$1 needs a value" ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    case $1 in
        --wheels) wheels=$2 ;;
        --out) out=$2 ;;
        --data) data=$2 ;;
        --minutes) minutes=$2 ;;
    esac
    shift 2
done
case $minutes in
    '' | *[!0-9]* | ???*) fail "--minutes $minutes is not a number from 1 to 60" ;;
esac
[ "$minutes" -ge 1 ] && [ "$minutes" -le 60 ] || fail "--minutes $minutes is not a number from 1 to 60"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels is not a folder; fetch wheels with deploy/gpu-wheels.py"
[ -z "$data" ] || [ -d "$data" ] || fail "--data $data is not a folder"

deadline=$(($(date +%s) + 60 * minutes))
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

python=${PYTHON:-}
for each in python3.12 python3.11 python3; do
    [ -z "$python" ] && "$each" -c 'import torch' 2>/dev/null && python=$each
done
python=${python:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$python is not Python 3.11 or newer; set PYTHON"

work=$(mktemp -d) running=''

# A command in the background: traps run while sh waits for one, and not while another one runs.
run() {
    timeout --kill-after 10 "$@" &
    running=$!
    wait "$running"
}

stop() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    wait
    exit "$1"
}

trap 'rm -rf "$work"' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM HUP

if [ -n "$wheels" ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ -f "$wheels/requirements-$version.txt" ] ||
        fail "$wheels has no wheels for Python $version; run deploy/gpu-wheels.py --python $version"
    mkdir "$work/wheels"
    for each in "$wheels"/*.whl; do
        [ ! -f "$each" ] || ln -s "$(readlink -f "$each")" "$work/wheels/"
    done
    for each in "$wheels"/*.whl.part-000; do
        whole=${each%.part-000}
        [ ! -f "$each" ] || [ -f "$whole" ] || cat "$whole".part-* >"$work/wheels/$(basename "$whole")"
    done
    (cd "$work/wheels" && sha256sum --check --quiet --ignore-missing) <"$wheels/SHA256SUMS" >&2 ||
        fail "a wheel in $wheels is damaged: copy it again"
    echo "installing $(wc -l <"$wheels/requirements-$version.txt") packages for this run" >&2
    run 180 "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
        --root-user-action ignore --find-links "$work/wheels" --target "$work/packages" \
        --requirement "$wheels/requirements-$version.txt" || fail "the wheels cannot be installed"
fi

export PYTHONPATH="$repository${wheels:+:$work/packages}${PYTHONPATH:+:$PYTHONPATH}"
seconds=$((deadline - $(date +%s)))
# shellcheck disable=SC2086 # parts are words
run $((seconds + 5)) "$python" -m benchmarks.gpu --out "$out" --seconds "$seconds" \
    ${data:+--data "$data"} ${parts:+--parts $parts}
