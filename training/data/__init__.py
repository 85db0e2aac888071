"""Problems and prompts: sources, chat templates, and decontamination."""
