# shellcheck shell=bash
# What the recipes of deploy/ share: the program, members that are trained once, an ensemble for as long as a script runs. They source
# it, which makes the workspace's root the current directory.
#   CHORUS=PROGRAM   instead of building one
#   WORK=DIR         where each recipe has its folder, instead of target
if [ -n "${CHORUS:-}" ]; then CHORUS=$(realpath "$CHORUS"); fi
if [ -n "${WORK:-}" ]; then WORK=$(realpath -m "$WORK"); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# begin [NAME]: the program is $chorus, and the folder, where there is to be one, $work.
begin() {
    if [ -n "${CHORUS:-}" ]; then
        chorus=$CHORUS
    else
        cargo build --release --quiet
        chorus=$(realpath "${CARGO_TARGET_DIR:-target}/release/chorus")
    fi
    ensemble=
    trap finish EXIT
    [ -n "${1:-}" ] || return 0
    work=${WORK:-$PWD/target}/$1
    mkdir -p "$work"
}

# Ends what still runs: the ensemble, and members' trainings where another one failed.
finish() {
    local running
    if [ -n "$ensemble" ]; then
        kill -INT "$ensemble" 2>/dev/null || true
        wait "$ensemble" 2>/dev/null || true
    fi
    running=$(jobs -p)
    # shellcheck disable=SC2086  # one word for each
    [ -z "$running" ] || kill $running 2>/dev/null || true
}

# Options, and the checksums of the files among them.
described() {
    local word
    printf '%s\n' "$*"
    for word; do
        [ ! -f "$word" ] || cksum <"$word"
    done
}

# train OUT OPTION...: a member in OUT. What was interrupted goes on; what is done is not done again.
train() {
    local out=$1 resume=() training && shift
    if [ -e "$out.trained" ] && [ -e "$out/model.safetensors" ]; then
        [ "$(cat "$out.trained")" != "$(described "$@")" ] || return 0
        echo "$out was trained with other options or texts: remove it, or choose another WORK" >&2
        exit 1
    fi
    [ ! -e "$out/checkpoint/checkpoint.safetensors" ] || resume=(--resume)
    "$chorus" train --out "$out" "$@" "${resume[@]}" &
    training=$!
    # Whoever ends this shell means the program.
    trap 'kill "$training" 2>/dev/null' TERM
    wait "$training"
    trap - TERM
    described "$@" >"$out.trained"
}

# await_vocabulary OUT PID: until the member that process PID trains has the vocabulary that others are to have, too.
await_vocabulary() {
    until [ -e "$1/tokenizer.json" ]; do
        if ! kill -0 "$2" 2>/dev/null; then
            wait "$2" || exit
            [ -e "$1/tokenizer.json" ] || { echo "$1 has no tokenizer.json: remove it and $1.trained" >&2 && exit 1; }
        fi
        sleep 1
    done
}

# serve MODELS: the members in MODELS answer at $address, until the script ends.
serve() {
    local word url rest
    coproc up { exec "$chorus" up --listen 127.0.0.1:0 --models "$1"; }
    # When it ends by itself bash forgets its name.
    ensemble=${up_PID:-}
    address=
    while [ -n "${up[0]:-}" ] && read -r word url rest <&"${up[0]}"; do
        [ "$word" = ensemble ] && address=${url#http://}
        case $word in Ctrl-C) break ;; esac
    done
    if [ -z "$address" ]; then
        echo "the ensemble did not start" >&2
        exit 1
    fi
}
