"""The experiment that shows what the loops teach (docs/proof.md): its runs, their results, its tables."""
