import json, os, sys

# The answer goes where stdout was; whatever the function prints goes to stderr.
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def say(kind, what):
    try:
        line = json.dumps({kind: what}, default=str, allow_nan=False)
    except (TypeError, ValueError):
        line = json.dumps({kind: str(what)})
    answer.write(line)
    answer.flush()
    os._exit(0)


def told(error):
    return (type(error).__name__ + ": " + str(error)).rstrip(": ")


asked = json.load(sys.stdin)
try:
    import importlib, inspect

    func = importlib.import_module(asked["module"])
    for part in asked["func"].split("."):
        func = getattr(func, part)
    arguments = asked["arguments"]
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):
        parameters = {}
    if "secrets" in parameters and asked["secrets"] is not None:
        arguments["secrets"] = asked["secrets"]
    if "configuration" in parameters:
        arguments["configuration"] = asked["configuration"]
    if parameters:
        inspect.signature(func).bind(**arguments)
except BaseException as error:
    say("broken", told(error))
try:
    output = func(**arguments)
except BaseException as error:
    names = {kind.__name__ for kind in type(error).__mro__}
    silent = {"ActivityFailed", "ConnectionError", "TimeoutError", "Timeout", "timeout"}
    say("no-answer" if names & silent else "broken", told(error))
say("output", output)
