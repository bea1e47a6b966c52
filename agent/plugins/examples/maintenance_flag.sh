#!/bin/sh
# A changer in POSIX shell: creates the flag file that puts a service into maintenance, and removes it again. A flag that is there
# already is refused, so that nothing of others is ever removed.
set -eu

request=$(cat)

# The text of a key of the request. Texts with quotes or backslashes are refused by the schema's pattern.
text() {
    printf '%s' "$request" | sed -n "s/.*\"$1\":\"\([^\"\\\\]*\)\".*/\1/p"
}

# The flag's path, from the data of the plan; nothing is done without one.
flag() {
    path=$(text flag)
    [ -n "$path" ] || { echo "no data" >&2; exit 1; }
    printf '%s' "$path"
}

mark=$(text mark)

# Whether a flag bears this change's mark: one of others is left alone.
is_ours() {
    [ -f "$1" ] && [ "$(cat "$1")" = "$mark" ]
}

case $(text verb) in
describe)
    cat <<'END' | tr -d '\n'
{"protocol": [1, 1], "name": "maintenance-flag", "summary": "Create a flag file that puts a service into maintenance",
"kind": "changer", "survives-reboot": true,
"schema": {"type": "object", "additionalProperties": false, "required": ["flag"], "properties":
{"flag": {"type": "string", "pattern": "^/[A-Za-z0-9._/-]+$", "description": "Absolute path of the flag file."}}},
"example": {"flag": "/run/example.maintenance"}}
END
    ;;
plan)
    path=$(flag)
    if [ -e "$path" ]; then
        printf '{"refused": "%s is there already", "hint": "the service is in maintenance"}\n' "$path"
        exit
    fi
    printf '{"changes": [{"data": {"flag": "%s"}, "holds": ["file:%s"], "effect": {"look": "file-exists", "path": "%s"}, ' "$path" "$path" "$path"
    printf '"apply": "create %s", "undo": "remove %s", ' "$path" "$path"
    printf '"if-agent-dies": "the guardian removes it; without it, the next start or `revert --all` does"}]}\n'
    ;;
apply)
    path=$(flag)
    # A second name is refused where something has that name by now, and the file is whole from its first moment.
    printf '%s' "$mark" >"$path.$mark"
    ln "$path.$mark" "$path"
    rm "$path.$mark"
    printf '{"done": "%s is there"}\n' "$path"
    ;;
observe)
    path=$(flag)
    if is_ours "$path" || [ -e "$path.$mark" ]; then state=present; else state=absent; fi
    printf '{"%s": "%s"}\n' "$state" "$path"
    ;;
undo)
    path=$(flag)
    if is_ours "$path"; then rm "$path"; fi
    rm -f "$path.$mark"
    printf '{"done": "%s is removed"}\n' "$path"
    ;;
*)
    echo "unknown verb" >&2
    exit 1
    ;;
esac
