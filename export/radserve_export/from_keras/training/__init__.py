"""Training of the reference models, on generated data or a user's own."""

from radserve_export.datasets import Dataset, Progress, load_dataset
from radserve_export.from_keras.training._train import Trained, train_model

__all__ = ["Dataset", "Progress", "Trained", "load_dataset", "train_model"]
