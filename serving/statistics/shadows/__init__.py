"""Results of shadow versions that wait in memory for the labels of their images."""
