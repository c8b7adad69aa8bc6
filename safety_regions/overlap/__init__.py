"""From regions to overlaps: a histogram of membership patterns, every IoU, and its chance level."""
