"""Turns a Llama-architecture checkpoint into a model folder that the moderato worker can load."""

EXPORTER_NAME = "moderato-model"
EXPORTER_VERSION = "0.3.0"
