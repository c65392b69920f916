"""Images: where they come from, in which order they are trained on, and how they are augmented."""
