"""A child process in which a model file is read, and what keeps it from doing more.

Its modules import neither TensorFlow nor Keras; ``confine`` and what it uses
import the standard library alone, because they run before anything else does.
"""
