"""The detokenize step."""
