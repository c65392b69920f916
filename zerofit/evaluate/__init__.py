"""Evaluation: of finished runs on images, and of language models on problems with answers. Imports nothing."""
