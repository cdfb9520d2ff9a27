"""Load and limit, side by side: `make bench` prints ratios measured in one run, and the limits they are held to."""
