"""What a backbone does with a prompt: greedy answers, and whether they refuse."""
