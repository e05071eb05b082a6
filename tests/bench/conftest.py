"""All benchmarks start here."""

from bench.report import be_as_nice_as_usual

be_as_nice_as_usual()
