"""Sources of python steps, copied into the model repository as they are."""
