#!/bin/sh
# Say whether the application serves: exit 0 if it does.
set -eu
echo "validate"
# It may still be starting: curl tries again while nobody listens yet.
# curl --fail --silent --show-error --max-time 5 \
#      --retry 10 --retry-delay 1 --retry-connrefused \
#      http://127.0.0.1:8080/healthz
