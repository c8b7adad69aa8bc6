"""Load a backbone, answer prompts, and judge whether the answers refuse."""
