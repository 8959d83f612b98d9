"""One server of several processes: `serve --processes`.

`supervisor.Supervisor` reserves the port, starts the processes and restarts those that end; each process runs
`child.main`, a whole server that listens on the same port. The two ends talk over a `channel.Channel`. May import every
room above it: `system` to `process`.
"""
