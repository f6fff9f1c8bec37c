"""What users import: open a folder, get a vector database."""
