"""From scores to regions: select the best fraction, pack it into bits, subtract the utility set's region."""
