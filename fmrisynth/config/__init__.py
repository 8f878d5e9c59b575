"""Settings are plain, frozen, validated data.

In come presets, overrides and JSON, out go dataclasses that describe a model and how it is
trained and sampled. They import the errors and nothing third-party.
"""
