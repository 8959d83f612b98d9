"""What the operating system provides: CPUs and quotas, memory, files, time, logging and network addresses.

Files are written whole (`files`) and read again when they change (`reloading`). Imports no other room.
"""
