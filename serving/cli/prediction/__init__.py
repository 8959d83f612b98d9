"""What `predict` does: find files, classify them by a server or in this process, write and compare the results.

Each file becomes a `FileResult`, from a `Source`: a server or a `LocalModel`. `ResultsFile` and `FolderComparison` take
it. May import `cli`, and every other room but `ray`.
"""
