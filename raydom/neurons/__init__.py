"""Neurons from superpixels, a graph of their borders, and its multicut: arrays in, arrays out."""
