"""Safety layers: where harmful prompts part from ordinary ones, and which range of layers carries refusals."""
