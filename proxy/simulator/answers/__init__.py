"""Well-formed answers, one module for each API's form."""
