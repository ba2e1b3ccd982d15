"""Search of settings: what a trial is, and what it is scored by."""
