"""The models: DCNv3, Mamba and BST branches, and MDAF, which fuses two of them by a gate."""
