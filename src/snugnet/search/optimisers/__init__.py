"""Optimisers of scores that are cheap, such as a predictor's."""
