"""From a dataset's card to its prompts: read, filter, split, and compare with the other datasets."""
