"""Plays GitHub's runner for a composite action: inputs, expressions, environment files, groups and commands.

usage: play.py ACTION_FOLDER WORKSPACE TEMP INPUTS_JSON

Prints one JSON object: the exit code, outputs, annotations, groups, commands that are unknown, the summary, and what would be uploaded. Whatever the
action uses that this runner does not play is an error: a test must not pass because a step was left out.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import yaml

ANNOTATIONS = {"error", "warning", "notice", "debug"}


def unescape(text, is_property=False):
    for code, character in [("%3A", ":"), ("%2C", ",")] if is_property else []:
        text = text.replace(code, character)
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


class Runner:
    def __init__(self, action, workspace, temp, inputs):
        self.folder = pathlib.Path(action)
        self.action = yaml.safe_load((self.folder / "action.yml").read_text())
        self.workspace, self.temp = workspace, pathlib.Path(temp)
        declared = self.action["inputs"]
        unknown = set(inputs) - set(declared)
        assert not unknown, f"the action has no inputs {unknown}"
        self.inputs = {name: str(inputs.get(name, one.get("default", ""))) for name, one in declared.items()}
        self.steps, self.path, self.environment = {}, [], {}
        self.result = {"exit-code": 0, "annotations": [], "groups": [], "unknown": [], "summary": "", "uploads": [], "log": ""}

    def value(self, expression):
        """A reference such as `inputs.x` or `steps.run.outputs.y`."""
        match expression.strip().split("."):
            case ["inputs", name]:
                return self.inputs[name]
            case ["steps", step, "outputs", name]:
                return self.steps.get(step, {}).get(name, "")
            case _:
                raise ValueError(f"this runner does not know {expression!r}")

    def text(self, template):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: self.value(found[1]), str(template))

    def is_due(self, step):
        failed = self.result["exit-code"] != 0
        condition = step.get("if", "success()")
        for part in condition.split("&&"):
            part = part.strip()
            if part == "success()":
                due = not failed
            elif part == "always()":
                due = True
            elif found := re.fullmatch(r"(\S+) != ''", part):
                due = self.value(found[1]) != ""
            else:
                raise ValueError(f"this runner does not know the condition {part!r}")
            if not due:
                return False
        return "always()" in condition or not failed

    def command(self, line):
        """Obeys a line as the runner does: `::name property=value::data` after blanks, or `##[name]` anywhere."""
        line = line.strip()
        found = re.match(r"::([\w-]+)( [^:]*)?::(.*)$", line) or re.search(r"##\[([\w-]+)( [^\]]*)?\](.*)$", line)
        if not found:
            return
        name, data = found[1], unescape(found[3])
        pairs = [pair.split("=", 1) for pair in (found[2] or "").strip().split(",") if "=" in pair]
        properties = {key.strip(): unescape(value, True) for key, value in pairs}
        if name in ANNOTATIONS:
            self.result["annotations"].append({"level": name, "message": data, **properties})
        elif name == "group":
            self.result["groups"].append(data)
        elif name != "endgroup":
            self.result["unknown"].append(name)

    def run(self, step):
        files = {name: self.temp / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        script = self.temp / "script.sh"
        script.write_text(self.text(step["run"]))
        environment = os.environ | self.environment | {key: self.text(value) for key, value in step.get("env", {}).items()}
        environment |= {name: str(file) for name, file in files.items()}
        environment |= {
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            "GITHUB_ACTION_PATH": str(self.folder),
            "GITHUB_WORKSPACE": self.workspace,
            "RUNNER_TEMP": str(self.temp),
            "PATH": ":".join([*reversed(self.path), os.environ["PATH"]]),
        }
        assert step["shell"] == "bash", step
        words = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
        done = subprocess.run(words, cwd=self.workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.result["log"] += done.stdout
        for line in done.stdout.splitlines():
            self.command(line)
        self.path += files["GITHUB_PATH"].read_text().split()
        for line in files["GITHUB_ENV"].read_text().splitlines():
            name, value = line.split("=", 1)
            self.environment[name] = value
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        self.steps[step.get("id", "")] = outputs
        self.result["summary"] += files["GITHUB_STEP_SUMMARY"].read_text()
        if done.returncode and not self.result["exit-code"]:
            self.result["exit-code"] = done.returncode

    def upload(self, step):
        given = {key: self.text(value) for key, value in step["with"].items()}
        folder = pathlib.Path(self.workspace) / given["path"]
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        self.result["uploads"].append({"name": given["name"], "files": files})

    def play(self):
        assert self.action["runs"]["using"] == "composite"
        for step in self.action["runs"]["steps"]:
            if not self.is_due(step):
                continue
            match step:
                case {"run": _}:
                    self.run(step)
                case {"uses": "actions/upload-artifact@v4"}:
                    self.upload(step)
                case _:
                    raise ValueError(f"this runner does not play {step}")
        self.result["outputs"] = {name: self.text(one["value"]) for name, one in self.action["outputs"].items()}
        return self.result


print(json.dumps(Runner(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])).play()))
