#!/bin/sh
# Stop the application. This runs from the revision that is installed, before
# the new one takes its place.
set -eu
echo "stop"
# systemctl stop @APP@
