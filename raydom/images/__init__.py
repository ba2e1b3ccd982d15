"""Arrays in, arrays out: numpy, scipy and scikit-image only."""
