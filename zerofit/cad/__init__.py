"""CAD construction sequences: what they are, how they are written as text, and the parts they make."""
