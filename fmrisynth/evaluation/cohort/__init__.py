"""Cohorts gather the records of many runs into comparable tables."""
