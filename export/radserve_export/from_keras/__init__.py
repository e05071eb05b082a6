"""The only part of radserve that imports TensorFlow and Keras."""
