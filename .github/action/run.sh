#!/usr/bin/env bash
# Runs the experiments, with a summary, annotations and a JUnit report. The step ends with the exit code of the run.
set -euo pipefail

words=(run --annotations github)
if [[ -n $INPUT_EXPERIMENT && -n $INPUT_SUITE ]] || [[ -z $INPUT_EXPERIMENT$INPUT_SUITE ]]; then
    echo '::error title=Backburn::give either the input suite or the input experiment'
    exit 2
fi
while IFS= read -r suite; do
    [[ -z $suite ]] || words+=("--suite=$suite")
done <<<"$INPUT_SUITE"
[[ -z $INPUT_SHARD ]] || words+=("--shard=$INPUT_SHARD")
[[ -z $INPUT_ONLY_CHANGED ]] || words+=("--only-changed=$INPUT_ONLY_CHANGED")
[[ -z $INPUT_PARALLEL ]] || words+=("--parallel=$INPUT_PARALLEL")
[[ -z $INPUT_LOCK ]] || words+=("--lock=$INPUT_LOCK")
[[ -z $INPUT_LOCK_TIMEOUT ]] || words+=("--lock-timeout=$INPUT_LOCK_TIMEOUT")
if [[ -n $INPUT_CONTROLLER ]]; then
    export BACKBURN_CONTROLLER=$INPUT_CONTROLLER
    [[ -n $INPUT_SUITE ]] || words+=(--wait)
fi
# In the environment, not on a command line that every process can read.
[[ -z $INPUT_TOKEN ]] || export BACKBURN_TOKEN=$INPUT_TOKEN
unset INPUT_TOKEN
mkdir -p "$INPUT_REPORTS"
words+=("--junit=$INPUT_REPORTS/junit.xml" "--markdown=$INPUT_REPORTS/summary.md")
# The journals of runs on this runner are kept with the reports.
export BACKBURN_STATE=${BACKBURN_STATE:-$RUNNER_TEMP/backburn-state}
[[ -z $INPUT_EXPERIMENT ]] || words+=(-- "$INPUT_EXPERIMENT")

code=0
backburn "${words[@]}" || code=$?
[[ ! -s $INPUT_REPORTS/summary.md ]] || cat "$INPUT_REPORTS/summary.md" >>"$GITHUB_STEP_SUMMARY"
[[ ! -d $BACKBURN_STATE/runs ]] || cp -R "$BACKBURN_STATE/runs" "$INPUT_REPORTS/"
verdicts=(held deviated invalid 'not started' aborted inconclusive 'not clean' 'report not written' 'waiting for approval' 'not injected')
{
    echo "exit-code=$code"
    echo "verdict=${verdicts[code]:-failed}"
} >>"$GITHUB_OUTPUT"
exit "$code"
