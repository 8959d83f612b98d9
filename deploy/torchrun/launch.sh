#!/bin/sh
# Trains on several nodes. Run it on each node with the same options of `python -m training fit`.
#
#   NODES=4 HEAD=node-1.example.com:29400 deploy/torchrun/launch.sh --data SHARDS --run /shared/runs/pets --cache /shared/cache
#
# NODES      number of nodes, or a range such as 2:4: training continues with fewer nodes, down to the smaller number
# HEAD       host:port of one node, where the nodes meet; the same on all nodes
# PROCESSES  processes on each node: one for each GPU (default), or a number
# JOB        name of the job, the same on all nodes
# RESTARTS   how often all processes are restarted after one is lost (3)
# LOCAL      address of this node, if the others cannot resolve its host name
# --run and --cache must be on a file system that all nodes share; --data must be the same images on each node.
set -eu

: "${NODES:?how many nodes, such as 4 or 2:4}"
: "${HEAD:?host:port of one of the nodes}"

if [ -z "${PROCESSES:-}" ] && ! "${PYTHON:-python}" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "launch.sh: torch finds no GPU on this node; set the number of processes, such as PROCESSES=2" >&2
    exit 2
fi

# Use a new store for each rendezvous. In torchrun's shared store, processes look up keys by the restart count of their
# own node; after a failure, nodes may disagree about that count and then wait for each other forever.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# Checkpoints are written at the ends of epochs. After a failure, all processes restart from the last checkpoint.
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" \
    --nproc-per-node "${PROCESSES:-gpu}" \
    --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$HEAD" \
    --rdzv-id "${JOB:-pawserve}" \
    ${LOCAL:+--local-addr "$LOCAL"} \
    -m training -- fit --auto-resume "$@"
