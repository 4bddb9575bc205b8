"""The stages of the build, one file each, in the order of the paper's section 4."""
