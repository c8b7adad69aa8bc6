"""What a region does: change the weights of a region, of matched controls, and measure what the model then says."""
