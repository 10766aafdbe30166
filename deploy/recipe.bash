# shellcheck shell=bash
# What the recipes deploy/*/table share: the program, members that are trained once, an ensemble for as long as a script runs. They source
# it, which makes the workspace's root the current directory.
#   CHORUS=PROGRAM   instead of building one
#   WORK=DIR         where members and results lie, instead of a folder below target
if [ -n "${CHORUS:-}" ]; then CHORUS=$(realpath "$CHORUS"); fi
if [ -n "${WORK:-}" ]; then WORK=$(realpath -m "$WORK"); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# begin NAME: the program is $chorus, and the folder $work.
begin() {
    if [ -n "${CHORUS:-}" ]; then
        chorus=$CHORUS
    else
        cargo build --release --quiet
        chorus=$(realpath "${CARGO_TARGET_DIR:-target}/release/chorus")
    fi
    work=${WORK:-$PWD/target/$1}
    mkdir -p "$work"
}

# train OUT OPTION...: a member in OUT. What was interrupted goes on; what is done is not done again.
train() {
    local out=$1 resume=() && shift
    [ ! -e "$out.trained" ] || return 0
    [ ! -e "$out" ] || resume=(--resume)
    "$chorus" train --out "$out" "$@" "${resume[@]}"
    touch "$out.trained"
}

# await_vocabulary OUT PID: until the member that process PID trains has the vocabulary that others are to have, too.
await_vocabulary() {
    until [ -e "$1/tokenizer.json" ]; do
        kill -0 "$2" 2>/dev/null || wait "$2"
        sleep 1
    done
}

# serve MODELS: the members in MODELS answer at $address, until the script ends.
serve() {
    local word url rest
    coproc up { exec "$chorus" up --listen 127.0.0.1:0 --models "$1"; }
    # shellcheck disable=SC2154  # coproc assigns it
    trap 'kill -INT "$up_PID" 2>/dev/null; wait "$up_PID" 2>/dev/null || true' EXIT
    address=
    while read -r word url rest <&"${up[0]}"; do
        [ "$word" = ensemble ] && address=${url#http://}
        case $word in Ctrl-C) break ;; esac
    done
    if [ -z "$address" ]; then
        echo "the ensemble did not start" >&2
        exit 1
    fi
}
