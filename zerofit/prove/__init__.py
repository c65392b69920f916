"""What runs are good for, shown by running them: the same work under every strategy."""
