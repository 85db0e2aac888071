#!/usr/bin/env bash
# Prints the path of `promtool` or `prometheus` (the argument): from PATH, else from Debian's package
# `prometheus`, unpacked under .cache without root. The package lists are our own, so that none need
# be on the machine.
set -euo pipefail
name=${1:?usage: scripts/prometheus.sh promtool|prometheus}
cd "$(dirname "$0")/.."
command -v "$name" && exit
cache=$PWD/.cache/prometheus
tool=$cache/root/usr/bin/$name
if [ ! -x "$tool" ]; then
    mkdir -p "$cache/lists/partial" "$cache/archives/partial"
    options=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache=$cache"
        -o "Dir::Cache::archives=$cache/archives" -o APT::Sandbox::User= -q)
    apt-get "${options[@]}" update >&2
    (cd "$cache" && apt-get "${options[@]}" download prometheus >&2)
    dpkg -x "$cache"/prometheus_*.deb "$cache/root"
fi
echo "$tool"
