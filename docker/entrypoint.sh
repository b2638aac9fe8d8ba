#!/bin/sh
# head and worker start a Ray node; anything else is a heatreel command.
set -eu
case "${1:-}" in
    head)
        shift
        exec ray start --head --block --port=6379 --dashboard-host=0.0.0.0 "$@"
        ;;
    worker)
        shift
        exec ray start --block --address="${RAY_HEAD:-head:6379}" "$@"
        ;;
    *)
        exec heatreel "$@"
        ;;
esac
