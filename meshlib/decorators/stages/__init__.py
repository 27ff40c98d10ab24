"""The decorators, one a file: what each does around the call."""
