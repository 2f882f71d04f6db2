"""Models: DCNv3, Mamba and BST branches, fused by a gate in MDAF."""
