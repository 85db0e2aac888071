"""Model families: the format of their thinking, from tokenizers and chat templates."""
