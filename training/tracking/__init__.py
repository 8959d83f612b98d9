"""Where people keep their runs: TensorBoard files, MLflow and Weights & Biases (W&B).

Main types: `Tracker`, an adapter to one of them, and `Trackers`, which no failure of a tracker gets through.
May import `console`, `evaluation` and `fitting`.
"""
