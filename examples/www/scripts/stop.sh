#!/bin/sh
# Takes the application out of service without losing a request: the health
# check fails first, so that load balancers look elsewhere; then the process
# finishes what it has and ends.
set -eu
[ -e "$WWW_STATE/pid" ] || exit 0
: >"$WWW_STATE/drain"
sleep "${WWW_DRAIN:-0.3}"
./www stop
