"""The command lines, one module each: `afd-train` and what works on the folders it leaves."""
