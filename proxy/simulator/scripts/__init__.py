"""Behaviours that a model's name chooses: one table, `table.SCRIPTS`, a row each."""
