"""How good a segmenter is on images without labels."""
