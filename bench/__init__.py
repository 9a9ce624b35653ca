"""Measurements of the kernels against reference loops and against what a competent user would run instead."""
