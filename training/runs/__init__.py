"""Run folders: the files of a finished run, and the folder in which one is built.

Main types: `Run`; `building` gives the folder of an unfinished run.
May import `console`, `recipes`, `networks`, `data` and `fitting`.
"""
