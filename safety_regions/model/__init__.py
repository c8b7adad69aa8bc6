"""Load a backbone, answer prompts greedily, and judge whether the answers refuse."""
