#!/bin/sh
# Starts the application as a daemon. It writes its own pid file, and this
# script returns when it listens.
set -eu
mkdir -p "$WWW_STATE"
rm -f "$WWW_STATE/drain"
./www serve </dev/null >>"$WWW_STATE/www.log" 2>&1 &
./www check --wait 10s "http://127.0.0.1:$PORT/ping"
echo "listening on $PORT"
