"""English findings for impressions: what there is, how it is said, and what the impression says of it."""

from __future__ import annotations

from radserve_export.synthetic._impression_grammar import Kind, Language

_LOBES = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "left lower lobe",
    "lingula",
)
_ORGANS = (
    "left kidney",
    "right kidney",
    "left liver lobe",
    "right liver lobe",
    "spleen",
    "pancreatic head",
    "pancreatic tail",
)
_REGIONS = (
    "left frontal lobe",
    "right frontal lobe",
    "left parietal lobe",
    "right parietal lobe",
    "left temporal lobe",
    "right temporal lobe",
    "left basal ganglia",
    "right basal ganglia",
)
_MEASURED = (
    "There is a {n} mm {name} in the {place}",
    "A {name} in the {place} measures {n} mm",
    "In the {place} a {name} of {n} mm is [seen|visible]",
    "[Findings include|We see] a {name} in the {place}, {n} mm in diameter",
    "The known {name} in the {place} now measures {n} mm, previously {other} mm",
    "A {n} mm {name} is [seen|noted|present] in the {place}",
    "In the {place} there is a {name}, which was {other} mm and is now {n} mm",
)
_GRADED = (
    "There is a {grade} {place} {name}",
    "A {grade} {name} is [seen|noted|present] on the {place}",
    "On the {place} there is a {grade} {name}",
    "A {place} {name} is [seen|present] and is {grade}",
    "[Again seen is|New is] a {grade} {place} {name}",
)
_SIDES = ("left", "right")
_GRADES = ("small", "moderate", "large", "tiny")

ENGLISH = Language(
    kinds=(
        Kind(names=("nodule", "mass", "consolidation", "cavity"), places=_LOBES, sentences=_MEASURED),
        Kind(names=("cyst", "lesion", "calcification", "haemangioma"), places=_ORGANS, sentences=_MEASURED),
        Kind(names=("haemorrhage", "contusion", "metastasis", "meningioma"), places=_REGIONS, sentences=_MEASURED),
        Kind(
            names=("pleural effusion", "pneumothorax", "subdural haematoma", "haemothorax"),
            places=_SIDES,
            grades=_GRADES,
            sentences=_GRADED,
            impression="{grade} {place} {name}",
        ),
    ),
    impression="{n} mm {name} in the {place}",
    absent=(
        "No {name}",
        "There is no {name}",
        "No {name} or {name2} is [seen|present]",
        "There is no evidence of {name}",
        "Neither {name} nor {name2}",
    ),
    resolved=(
        "The {place} {name} has [resolved|disappeared]",
        "The {place} {name}, previously {n} mm, is no longer [seen|visible]",
    ),
    normal=(
        "The heart is [normal in size|not enlarged]",
        "The mediastinum is [normal|not widened]",
        "The bones are intact",
        "The [liver|spleen|pancreas] is [normal|unremarkable]",
        "The ventricles are [normal|not enlarged]",
        "Comparison: study of {n} days ago",
        "Slice thickness {n} mm",
        "The [airways|vessels] are [patent|normal]",
        "CT [with|without] contrast",
    ),
    nothing="No acute abnormality.",
    gap=" ",
    stop=".",
    number="{n}. ",
)
