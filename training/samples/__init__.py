"""A drawn data set of cats and dogs, to try everything without a download. May import no other room."""
