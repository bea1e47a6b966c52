"""The protocol `backburn-plugin/1` for plug-ins in Python: one file without dependencies, to be copied beside a plug-in.

A plug-in writes what it is, and a function for each verb that its kind needs:

    import backburn_plugin as plugin

    DESCRIPTION = {"name": "hold-port", "kind": "holder", ...}

    def plan(request): ...     # -> plugin.change(...), plugin.faults(...), or raise plugin.Refused("why", hint="...")
    def hold(data, request): ...            # holder: call plugin.ready("...") and do not return
    def apply(data, request): ...           # changer: -> a text; raise to fail
    def observe(data, request): ...         # changer: -> ("absent" | "present" | "contested", text)
    def undo(data, request): ...            # changer: -> a text; raise to fail

    plugin.main(DESCRIPTION, plan=plan, hold=hold)

An agent pins one file. `python3 -m zipapp` makes one of a plug-in and this module; see docs/plugins.md.
"""

import json
import sys


class Refused(Exception):
    """The plug-in will not do what is asked, and says what would be possible."""

    def __init__(self, why, hint=None):
        super().__init__(why)
        self.hint = hint


def change(data, holds, effect, apply, undo, if_agent_dies):
    """One change of a holder or a changer. `data` comes back with every later verb."""
    return {
        "data": data,
        "holds": holds,
        "effect": effect,
        "apply": apply,
        "undo": undo,
        "if-agent-dies": if_agent_dies,
    }


def changes(*planned, notes=()):
    """The answer of a holder or a changer to `plan`."""
    return {"changes": list(planned), "notes": list(notes)}


def faults(*chosen, notes=()):
    """The answer of a planner: pairs of a built-in fault's name and its arguments."""
    chosen = [{"fault": fault, "arguments": arguments} for fault, arguments in chosen]
    return {"faults": chosen, "notes": list(notes)}


def answer(value):
    """Writes the answer, one line."""
    print(json.dumps(value), flush=True)


def ready(text):
    """Says that a holder's fault acts."""
    answer({"ready": text})


def main(description, plan, hold=None, apply=None, observe=None, undo=None):
    """Reads the request and answers it."""
    request = json.load(sys.stdin)
    verb = request["verb"]
    if verb == "describe":
        return answer({"protocol": [1, 1], **description})
    if verb == "plan":
        try:
            return answer(plan(request))
        except Refused as refused:
            hint = {"hint": refused.hint} if refused.hint else {}
            return answer({"refused": str(refused), **hint})
    data = request["data"]
    if verb == "hold" and hold:
        try:
            hold(data, request)
        except Exception as error:
            return answer({"failed": f"{type(error).__name__}: {error}"})
        return None
    if verb == "observe" and observe:
        state, text = observe(data, request)
        return answer({state: text})
    work = {"apply": apply, "undo": undo}.get(verb)
    if not work:
        sys.exit(f"unknown verb {verb!r}")
    try:
        return answer({"done": work(data, request)})
    except Exception as error:
        return answer({"failed": f"{type(error).__name__}: {error}"})
