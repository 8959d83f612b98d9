"""Training: the fit loop, its schedules, the learning-rate finder, snapshots and checkpoints.

Main types: `FitSession` (what every step works with), `Trainer`, `FitState` (what a checkpoint holds) and `FitResult`.
May import `console`, `hardware`, `distributed`, `recipes`, `networks`, `data`, `features` and `evaluation`.
"""
