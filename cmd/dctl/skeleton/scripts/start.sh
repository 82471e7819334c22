#!/bin/sh
# Start the application. Whatever it leaves running goes on when this script
# has ended, and when the agent is restarted.
set -eu
echo "start revision $(pwd)"
# systemctl start @APP@
