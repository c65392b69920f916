"""What a run will be: everything that is derived from a recipe. Imports no tensor library."""
