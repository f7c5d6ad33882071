"""An app with a model whose text is embedded."""
