"""Figures and the report: they read histogram files and training histories, and import no other stage."""
