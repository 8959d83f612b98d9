"""What the operating system gives a process.

CPUs and quotas, memory, files that are written whole, files that are read again when they change, time, logging, and
network addresses. Imports no other room.
"""
