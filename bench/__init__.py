"""What the package costs on this machine, each figure beside the least that it could cost."""
