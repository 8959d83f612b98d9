"""The confusion matrix and calibration of predictions against labels: counted, stored durably, and read.

`StatisticsStore` keeps the counts in SQLite or PostgreSQL and returns a `ConfusionMatrix` and calibration bins for each
version; `Feedback` issues tokens and records labels. May import `system`, `bundle`, `tokens` and `comparison`.
"""
