"""What is done to a block, and the plain runner that does it block after block."""
