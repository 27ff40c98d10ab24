"""What the code says about itself, as Markdown: one module a part, each reads the very tables the code runs by."""
