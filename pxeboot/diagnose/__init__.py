"""Diagnosis: what else is out there, and what it does to boots."""
