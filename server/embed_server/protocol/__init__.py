"""The wire, field by field: one file for each API; pydantic lives here and nowhere else."""
