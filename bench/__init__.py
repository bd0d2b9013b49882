"""Side-by-side measurements against the real peers, in one run, as ratios. ``make bench``."""
