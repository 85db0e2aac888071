"""The core alone: segmenting and comparing answers."""
