"""The confusion matrix of predictions against labels: counted, stored durably, and read.

`ConfusionMatrix` and `Calibration` are the figures; `StatisticsStore` keeps them in SQLite or PostgreSQL; `Feedback`
turns tokens and labels into counts. May import `system`, `context`, `bundle` and `tokens`.
"""
