"""Figures and pages for people, from the files of the other rooms."""
