"""Starting ranks, watching them, and telling how they ended."""
