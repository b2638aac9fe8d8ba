"""The science of heatreel: plain stages and functions, no Ray, no hidden state.

Flow order: decode, perturb, score, refine, aggregate, render. Files named by a verb are the stages; files named by a
noun hold what they use. `stages` imports neither `pipeline` nor `ray` (lint enforces it).
"""
