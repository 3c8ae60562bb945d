"""The paper's figures, tables and theorem, one file each: rows, figure, the paper's numbers."""
