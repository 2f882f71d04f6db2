#!/usr/bin/env bash
# The gate of action.yml: probes, compares with the baseline if there is one, and says so in ctrkit-compare.md and in the job's summary.
# On the default branch the probe becomes the baseline. Settings come as CTRKIT_* variables, see action.yml.
set -uo pipefail

new=ctrkit-new
rm -rf "$new"
words=()
eval "words=(${CTRKIT_ARGUMENTS:-})"
if [ -n "${CTRKIT_COMMAND:-}" ]; then
  eval "command=($CTRKIT_COMMAND)"
  words+=(-- "${command[@]}")
fi
ctrkit probe --budget "${CTRKIT_BUDGET:-5m}" --out "$new" --quiet ${words[@]+"${words[@]}"} || exit $?

tell() {  # the verdict, for the steps that follow
  if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "verdict=$1" >> "$GITHUB_OUTPUT"; fi
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat ctrkit-compare.md >> "$GITHUB_STEP_SUMMARY"; fi
  echo "ctrkit gate: $1"
}

code=0
if [ -d "$CTRKIT_BASELINE" ]; then
  ctrkit report --compare "$CTRKIT_BASELINE" "$new" --threshold "${CTRKIT_THRESHOLD:-10%}" --markdown ctrkit-compare.md || code=$?
  [ -f ctrkit-compare.md ] || echo "ctrkit could not compare this probe with the baseline (exit code $code)." > ctrkit-compare.md
  case $code in
    0) tell same ;;
    3) tell unsure; if [ "${CTRKIT_ACCEPT_UNSURE:-true}" = true ]; then code=0; fi ;;
    5) tell slower ;;
    2) tell not-comparable ;;
    *) tell error ;;
  esac
else
  ctrkit report "$new" --markdown ctrkit-compare.md || exit $?
  tell baseline
fi

default_branch=${CTRKIT_DEFAULT_BRANCH:-}
if [ "${GITHUB_EVENT_NAME:-push}" = push ] && { [ -z "$default_branch" ] || [ "${GITHUB_REF_NAME:-}" = "$default_branch" ]; }; then
  rm -rf "$CTRKIT_BASELINE"
  cp -r "$new" "$CTRKIT_BASELINE"
fi
exit "$code"
