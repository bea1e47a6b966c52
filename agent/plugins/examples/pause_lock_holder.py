#!/usr/bin/env python3
"""A planner: pauses whatever holds a lock on a file."""

import os

import backburn_plugin as plugin

DESCRIPTION = {
    "name": "pause-lock-holder",
    "summary": "Pause the process that holds a lock on a file",
    "kind": "planner",
    "schema": {
        "type": "object",
        "additionalProperties": False,
        "required": ["file"],
        "properties": {"file": {"type": "string", "description": "The locked file."}},
    },
    "example": {"file": "/run/lock/backup.lock"},
}


def plan(request):
    path = request["arguments"]["file"]
    try:
        inode = os.stat(path).st_ino
    except OSError as error:
        raise plugin.Refused(f"{path}: {error.strerror}", hint="name a file that exists") from error
    with open("/proc/locks", encoding="ascii") as locks:
        fields = [line.split() for line in locks]
    # `1: FLOCK ADVISORY WRITE 4711 08:02:1234 0 EOF`; one that waits for a lock has `->` after the number.
    pids = {int(words[4]) for words in fields if words[1] != "->" and words[5].endswith(f":{inode}")}
    pids.discard(-1)
    if not pids:
        raise plugin.Refused(f"nobody holds a lock on {path}", hint="`lslocks` shows who locks what")
    return plugin.faults(
        ("process-pause", {"process": {"pid": sorted(pids), "select": "all"}}),
        notes=[f"{path} is locked by {', '.join(map(str, sorted(pids)))}"],
    )


plugin.main(DESCRIPTION, plan=plan)
