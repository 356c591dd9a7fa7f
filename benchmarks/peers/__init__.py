"""The systems that are compared, one file each: loaded by the Python of their environment.

They import numpy and their own library, nothing of this project.
"""
