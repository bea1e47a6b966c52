"""Prints how fast Backburn is beside others: runs of each in turn, so that both meet the same
machine. Each line: number of runs, median, least and most, and the ratio of the medians."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = Path(sys.argv[1]).resolve()
CHAOS = Path("tests/.venv/bin/chaos").absolute()
BACKBURN = PROGRAMS / "backburn"
AGENT = PROGRAMS / "backburn-agent"
MEASURE = Path("target/release/measure").absolute()


def timed(command, folder):
    """Wall time in ms, processor time in ms and peak memory in MiB, of a command and its children."""
    # By a small program: the kernel counts what a process was before `exec` in its peak memory, and
    # this one is large.
    measured = subprocess.run([MEASURE, *command], stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment(folder))
    return json.loads(measured.stdout)


def environment(folder):
    return {**os.environ, "HOME": str(folder), "BACKBURN_STATE": str(folder / "state")}


def line(what, unit, ours, others, other):
    def shown(values):
        values = sorted(values)
        return f"n={len(values):<3} {statistics.median(values):9.2f}  {values[0]:9.2f} .. {values[-1]:9.2f} {unit}"

    print(f"{what}")
    print(f"  {'backburn':<16} {shown(ours)}")
    if others:
        print(f"  {other:<16} {shown(others)}")
        print(f"  {'ratio':<16} {statistics.median(others) / statistics.median(ours):.1f}")
    sys.stdout.flush()


def write(folder, document):
    file = folder / "experiment.json"
    file.write_text(json.dumps({"version": "1.0.0", "title": "bench", "description": "bench", **document}))
    return file


def process(path, *arguments):
    return {"type": "process", "path": path, "arguments": list(arguments)}


def whole_run(folder):
    """One process probe and one process action."""
    file = write(folder, {"method": [
        {"type": "probe", "name": "probe", "provider": process("/bin/true")},
        {"type": "action", "name": "action", "provider": process("/bin/true")},
    ]})
    commands = {
        "ours": [BACKBURN, "run", file],
        "theirs": [CHAOS, "--no-version-check", "--log-file", folder / "log", "run", "--journal-path", folder / "j", file],
    }
    taken = {name: [] for name in commands}
    for turn in range(21):
        for name, command in commands.items():
            run = timed(command, folder)
            assert run["code"] == 0, (name, run)
            # The first of each fills caches.
            if turn:
                taken[name].append(run)
    for figure, unit in [("wall", "ms"), ("processor", "ms"), ("memory", "MiB")]:
        ours, theirs = ([run[figure] for run in taken[name]] for name in ("ours", "theirs"))
        line(f"a run of one probe and one action: {figure}", unit, ours, theirs, "chaos run")


def abort_to_gone(folder):
    """From the sample that breaches an abort rule to the fault seen gone; there, to the action's end."""
    ours, theirs = [], []
    for turn in range(20):
        victim = subprocess.Popen(["sleep", "600"])
        stopped = ["-c", f"import sys; sys.exit(open('/proc/{victim.pid}/stat').read().rsplit(')')[-1].split()[0] in 'Tt')"]
        file = write(folder, {
            "steady-state-hypothesis": {"title": "h", "probes": [
                {"type": "probe", "name": "runs", "tolerance": 0, "provider": process(sys.executable, *stopped)}]},
            "abort": [{"name": "it stands still", "probe": "runs", "every": "100ms", "failures": 1}],
            "method": [{"type": "action", "name": "pause", "provider": {
                "type": "fault", "fault": "process-pause", "duration": "10s", "arguments": {"process": {"pid": victim.pid}}}}],
        })
        out = subprocess.run([BACKBURN, "run", "--json", file], capture_output=True, text=True, env=environment(folder))
        victim.kill()
        victim.wait()
        events = [json.loads(text) for text in out.stdout.splitlines()]
        assert out.returncode == 1, out.stderr
        breach = max(e["elapsed"] for e in events if e.get("event") == "sampled" and e["judgement"] == "outside" and e["phase"] == "method")
        gone = next(e["elapsed"] for e in events if e.get("event") == "injection-ended")
        ours.append((gone - breach) * 1000)
    for turn in range(3):
        sign = folder / "sign"
        sign.touch()
        program = "import os, sys, time; os.remove(sys.argv[1]); time.sleep(10)"
        file = write(folder, {
            "steady-state-hypothesis": {"title": "h", "probes": [
                {"type": "probe", "name": "there", "tolerance": 0, "provider": process("test", "-e", str(sign))}]},
            "method": [{"type": "action", "name": "break it for ten seconds", "provider": process(sys.executable, "-c", program, str(sign))}],
        })
        journal = folder / "j"
        timed([CHAOS, "--no-version-check", "--log-file", folder / "log", "run", "--hypothesis-strategy", "continuously",
               "--hypothesis-frequency", "0.1", "--fail-fast", "--journal-path", journal, file], folder)
        # What was done goes on until its action ends.
        theirs.append(json.loads(journal.read_text())["run"][0]["duration"] * 1000)
    line("from the breaching sample to the fault seen gone", "ms", ours, theirs, "chaos --fail-fast")


def find_by_name(folder):
    """One process by its name among 2,000 others."""
    needle = folder / "needle"
    shutil.copy("/bin/sleep", needle)
    others = []
    try:
        others = [subprocess.Popen(["/bin/sleep", "600"]) for _ in range(2000)]
        others.append(subprocess.Popen([needle, "600"]))
        commands = {
            "ours": [AGENT, "--state", folder / "state", "plan", "process-kill", "--process-name", "needle"],
            "theirs": ["pgrep", "-x", "needle"],
            # What it takes to start and to say anything.
            "our start": [AGENT, "faults"],
            "their start": ["pgrep", "--version"],
        }
        taken = {name: [] for name in commands}
        for turn in range(21):
            for name, command in commands.items():
                run = timed(command, folder)
                assert run["code"] == 0, (name, run)
                if turn:
                    taken[name].append(run)
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()
    for figure in ("wall", "processor"):
        ours, theirs = ([run[figure] for run in taken[name]] for name in ("ours", "theirs"))
        line(f"a process by name among 2,000, a program's start and all: {figure}", "ms", ours, theirs, "pgrep -x")
    ours, theirs = ([with_it["wall"] - alone["wall"] for with_it, alone in zip(taken[name], taken[start])]
                    for name, start in (("ours", "our start"), ("theirs", "their start")))
    line("the same less the program's start: wall", "ms", ours, theirs, "pgrep -x")


def status(pid):
    fields = dict(text.split(":", 1) for text in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in text)
    switches = sum(int(fields[name]) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))
    pss = next(int(text.split()[1]) for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if text.startswith("Pss:"))
    return {"name": fields["Name"].strip(), "resident": int(fields["VmRSS"].split()[0]) / 1024, "share": pss / 1024, "switches": switches}


def below(pid):
    """The processes below one, whichever of its threads started them."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += [int(child)] + below(int(child))
    return found


def at_rest(folder):
    """The agent while nothing is injected: guardian and worker together, over 20 s."""
    victim = subprocess.Popen(["sleep", "600"])
    file = write(folder, {"abort": [], "method": [{"type": "action", "name": "later", "pauses": {"before": 60}, "provider": {
        "type": "fault", "fault": "process-pause", "duration": "1s", "arguments": {"process": {"pid": victim.pid}}}}]})
    run = subprocess.Popen([BACKBURN, "run", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(folder))
    time.sleep(2)
    agent = below(run.pid)
    before = [status(pid) for pid in agent]
    time.sleep(20)
    after = [status(pid) for pid in agent]
    run.terminate()
    run.wait()
    victim.kill()
    victim.wait()
    print("the agent at rest, with a controller that beats")
    for name, first, last in zip(("guardian", "worker"), before, after):
        switches = last["switches"] - first["switches"]
        print(f"  {name:<16} {last['resident']:6.2f} MiB resident ({last['share']:.2f} its share), {switches} context switches in 20 s")
    print(f"  {'together':<16} {sum(one['resident'] for one in after):6.2f} MiB resident ({sum(one['share'] for one in after):.2f} their share)")
    sys.stdout.flush()


PARTS = {"run": whole_run, "abort": abort_to_gone, "find": find_by_name, "rest": at_rest}


def main():
    wanted = sys.argv[2:] or list(PARTS)
    print(f"{os.cpu_count()} processors, Linux {os.uname().release}; median, least .. most")
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


main()
