"""Generation: completions of prompts from any causal language model that lies whole on one device."""
