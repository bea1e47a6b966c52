#!/usr/bin/env python3
"""A changer: sets a line `key=value` of a configuration file to another value."""

import os
import shutil

import backburn_plugin as plugin

DESCRIPTION = {
    "name": "edit-setting",
    "summary": "Set a key of a configuration file to another value",
    "kind": "changer",
    "schema": {
        "type": "object",
        "additionalProperties": False,
        "required": ["file", "key", "value"],
        "properties": {
            "file": {"type": "string", "description": "The file, with lines `key=value`."},
            "key": {"type": "string", "description": "The key."},
            "value": {"type": "string", "description": "The value while the fault lasts."},
        },
    },
    "example": {"file": "/etc/example.conf", "key": "timeout", "value": "0"},
    "capabilities": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"],
    "survives-reboot": True,
}


def plan(request):
    arguments = request["arguments"]
    path, key = os.path.realpath(arguments["file"]), arguments["key"]
    line = f"{key}={arguments['value']}"
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise plugin.Refused(f"{path}: {error.strerror}") from error
    if line in lines or not any(old.startswith(f"{key}=") for old in lines):
        raise plugin.Refused(f"{path} has no `{key}` with another value")
    return plugin.changes(
        plugin.change(
            data={"file": path, "key": key, "line": line},
            holds=[f"file:{path}"],
            effect={"look": "file-contains", "path": path, "text": line},
            apply=f"set `{line}` in {path}",
            undo=f"rename the original beside {path} (.MARK.original) to {path}",
            if_agent_dies="the guardian undoes it; without it, the next start or `revert --all` does",
        )
    )


def names(data, request):
    """The file, its original beside it, and the copy that is being written."""
    folder, name = os.path.split(data["file"])
    beside = os.path.join(folder, f".{name}.{request['mark']}")
    return data["file"], f"{beside}.original", f"{beside}.new"


def edited(data, original):
    """The lines of the file while the fault acts."""
    with open(original, encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    return [data["line"] + "\n" if line.startswith(data["key"] + "=") else line for line in lines]


def is_contested(data, path, original):
    """Whether somebody else has changed the file since: what is there is neither the original nor what `apply` made of it."""
    try:
        if os.path.samefile(path, original):
            return False
        with open(path, encoding="utf-8") as file:
            return file.read() != "".join(edited(data, original))
    except FileNotFoundError:
        return True


def apply(data, request):
    path, original, new = names(data, request)
    shutil.copy2(path, new)
    owner = os.stat(path)
    os.chown(new, owner.st_uid, owner.st_gid)
    os.chmod(new, owner.st_mode & 0o7777)
    with open(new, "w", encoding="utf-8") as file:
        file.writelines(edited(data, path))
    # A second name keeps the original whole; from then on the file is replaced in one step.
    os.link(path, original)
    os.rename(new, path)
    return f"{path} says `{data['line']}`"


def observe(data, request):
    path, original, new = names(data, request)
    if not os.path.exists(original):
        return ("present", f"{new} is there") if os.path.exists(new) else ("absent", f"{path} is the original")
    if is_contested(data, path, original):
        return "contested", f"somebody else has changed {path} since; what it was before the fault is {original}"
    return "present", f"the original is {original}"


def undo(data, request):
    path, original, new = names(data, request)
    if os.path.exists(new):
        os.unlink(new)
    if not os.path.exists(original):
        return f"{path} is the original"
    if is_contested(data, path, original):
        raise RuntimeError(f"{path} was changed by somebody else, and is left alone; the original is {original}")
    if os.path.samefile(path, original):
        os.unlink(original)
    else:
        os.rename(original, path)
    return f"{path} is the original"


plugin.main(DESCRIPTION, plan=plan, apply=apply, observe=observe, undo=undo)
