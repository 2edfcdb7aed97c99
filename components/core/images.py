"""Container images of the steps: the one place where they are named.

A pipeline compiled for a cluster names them by digest instead (`pipelines.image_lock`); the local runner ignores them.
"""

CPU = "driftline-python-cpu:0.1.0"
GPU = "driftline-python-gpu:0.1.0"
"""CPU's code on CUDA libraries, for steps that ask for an accelerator."""
