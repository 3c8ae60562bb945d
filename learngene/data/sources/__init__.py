"""Where images come from: glyphs, folders, parquet tables, CIFAR's pickles."""
