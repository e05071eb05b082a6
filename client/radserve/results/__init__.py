"""What a model answers: frozen, typed, coded, and traceable to the model that said it."""

from radserve.results._classification import Classification, EvidenceMap, Finding, ImageFindings
from radserve.results._result import Progress, Provenance, Rejection, Result
from radserve.results._segmentation import Region, Segmentation
from radserve.results._tensors import Tensors
from radserve.results._text import GeneratedText

__all__ = [
    "Classification",
    "EvidenceMap",
    "Finding",
    "GeneratedText",
    "ImageFindings",
    "Progress",
    "Provenance",
    "Region",
    "Rejection",
    "Result",
    "Segmentation",
    "Tensors",
]
