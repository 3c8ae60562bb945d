"""What several methods share: backbone, heads, factory training, MAML's steps, federated rounds."""
