# shellcheck shell=bash
# A control group that limits the memory of one server, page cache included. Sourced after
# common.sh; a script that calls `make_memory_group` calls `remove_memory_group` when it ends.
#
# Where the host lets us make no group, MEMORY_GROUP stays empty and MEMORY_GROUP_HOW says so: the
# measurement goes on without a limit, and its report carries that sentence.
#
# shellcheck disable=SC2034 # The script that sources this reads it.

MEMORY_GROUP="" MEMORY_GROUP_HOW="none: no memory controller was found"

make_memory_group() { # BYTES
    local folder file
    remove_memory_group
    if grep -qsw memory /sys/fs/cgroup/cgroup.controllers; then
        echo +memory 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control || true
        folder=/sys/fs/cgroup/rond-perf-$$ file=memory.max
    elif [[ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]]; then
        folder=/sys/fs/cgroup/memory/rond-perf-$$ file=memory.limit_in_bytes
    else
        return 0
    fi
    if ! mkdir "$folder" 2>/dev/null; then
        MEMORY_GROUP_HOW="none: $folder cannot be made"
    elif ! { echo "$1" >"$folder/$file"; } 2>/dev/null; then
        MEMORY_GROUP_HOW="none: $folder/$file cannot be set"
        rmdir "$folder"
    else
        MEMORY_GROUP=$folder
        MEMORY_GROUP_HOW="$file of $(($1 >> 20)) MiB"
    fi
}

# Becomes a command, inside the group if there is one.
exec_in_memory_group() { # COMMAND...
    if [[ -n $MEMORY_GROUP ]]; then echo "$BASHPID" >"$MEMORY_GROUP/cgroup.procs"; fi
    exec "$@"
}

remove_memory_group() {
    if [[ -z $MEMORY_GROUP ]]; then return 0; fi
    rmdir "$MEMORY_GROUP" 2>/dev/null || say "could not remove $MEMORY_GROUP"
    MEMORY_GROUP=""
}
