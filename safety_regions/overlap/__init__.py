"""From regions to overlaps: one histogram of membership patterns, every IoU, the chance level beside it."""
