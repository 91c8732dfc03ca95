"""Detectors at work: pictures with boxes (`draw`), and whole folders of files (`predict`)."""
