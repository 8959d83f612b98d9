"""What is to be known of a GPU host, in a few minutes: `deploy/gpu-check.sh` runs `python -m benchmarks.gpu`.

`parts` measures, each part in a process of its own; `report` makes one page of the results.
"""
