"""Container images of the steps: the one place where they are named."""

# Pinned by digest when a pipeline is compiled for a cluster; the local runner ignores images.
CPU = "driftline-python-cpu:0.1.0"
