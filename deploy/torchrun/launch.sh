#!/bin/sh
# Trains on several nodes: run this on each of them, with the same options of `python -m training fit`.
#
#   NODES=4 HEAD=node-1.example.com:29400 deploy/torchrun/launch.sh --data SHARDS --run /shared/runs/pets --cache /shared/cache
#
# NODES      how many, or a range such as 2:4: with fewer than the most, training goes on as long as the least are there
# HEAD       host:port of one of the nodes, the same on all; there they meet
# PROCESSES  on each node: one a GPU (default), or a number
# JOB        a name of the job, the same on all nodes
# RESTARTS   how often all processes are started again when one is lost
# LOCAL      this node's address, where the others cannot find it by its host name
# --run and --cache lie on a file system that all nodes share; --data is the same photos on each.
set -eu

: "${NODES:?how many nodes, such as 4 or 2:4}"
: "${HEAD:?host:port of one of the nodes}"

if [ -z "${PROCESSES:-}" ] && ! "${PYTHON:-python}" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "launch.sh: torch finds no GPU on this node; say how many processes it shall have, such as PROCESSES=2" >&2
    exit 2
fi

# Each meeting of the nodes has a store of its own. In the one that torchrun keeps, processes look under the number of times
# that their own node was started again; after a loss nodes may differ in that, and then wait for each other for ever.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# Checkpoints are written at the ends of epochs; after a loss every process begins anew, and goes on from the last one.
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" \
    --nproc-per-node "${PROCESSES:-gpu}" \
    --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$HEAD" \
    --rdzv-id "${JOB:-pawserve}" \
    ${LOCAL:+--local-addr "$LOCAL"} \
    -m training -- fit --auto-resume "$@"
