#!/bin/sh
# Is it up at all? Whether it serves well is asked by the gate, from outside.
set -eu
./www check "http://127.0.0.1:$PORT/ping"
