"""The report of a run: figures, galleries of images and tables in one self-contained HTML page.

Main types: `ReportContents` and `Gallery`; `write_report` makes both from a finished fit.
May import `console`, `versions`, `recipes`, `networks`, `data`, `evaluation`, `checks`, `fitting` and `runs`.
"""
