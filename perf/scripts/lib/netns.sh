# shellcheck shell=bash
# A network namespace for one measurement, with the congestion control that measures the servers
# and not its own timer. Sourced after common.sh; a script that calls `make_netns` calls `remove_netns`
# when it ends.

readonly ALLOWED_KNOB=/proc/sys/net/ipv4/tcp_allowed_congestion_control
NETNS="rond-perf-$$" NETNS_MADE=no ALLOWED_BEFORE=""
: "${CONGESTION:=cubic}" # bbr, for a question of its own

in_netns() { ip netns exec "$NETNS" "$@"; }

make_netns() {
    local knob=/proc/sys/net/ipv4/tcp_congestion_control now
    ip netns add "$NETNS"
    NETNS_MADE=yes
    in_netns ip link set lo up
    # Listeners keep the algorithm they were born with, so it is set before any is bound.
    allow_congestion
    in_netns sh -c "echo $CONGESTION >$knob" 2>/dev/null || true
    restore_allowed
    now=$(in_netns cat "$knob")
    if [[ $now != "$CONGESTION" ]]; then
        die "the namespace's congestion control is $now and cannot be made $CONGESTION"
    fi
}

remove_netns() {
    restore_allowed
    if [[ $NETNS_MADE == yes ]]; then ip netns del "$NETNS" || true; fi
    NETNS_MADE=no
}

# A namespace may only choose among the algorithms that the host allows to everybody. Where
# $CONGESTION is not one of them, it is allowed for the moment of choosing.
allow_congestion() {
    local allowed
    allowed=$(cat "$ALLOWED_KNOB" 2>/dev/null) || return 0
    if grep -qw "$CONGESTION" <<<"$allowed"; then return 0; fi
    say "allowing $CONGESTION in $ALLOWED_KNOB for a moment (was: $allowed)"
    ALLOWED_BEFORE=$allowed
    printf '%s %s\n' "$allowed" "$CONGESTION" >"$ALLOWED_KNOB" ||
        die "cannot write $ALLOWED_KNOB (in a container?); add $CONGESTION to it on the host"
}

restore_allowed() {
    if [[ -z $ALLOWED_BEFORE ]]; then return 0; fi
    printf '%s\n' "$ALLOWED_BEFORE" >"$ALLOWED_KNOB" || say "could not restore $ALLOWED_KNOB"
    ALLOWED_BEFORE=""
}

# The namespace's setting is only a default: the listeners themselves are asked too.
check_listeners() {
    local listeners others
    listeners=$(in_netns ss --no-header --oneline --listening --tcp --numeric --info)
    others=$(grep -vw "$CONGESTION" <<<"$listeners" || true)
    if [[ -z $listeners || -n $others ]]; then die "listeners without $CONGESTION: $others"; fi
}
