"""Radiology reports in English and Chinese: does one name a critical finding?

A report is positive when it says of a critical finding (pneumothorax,
intracranial haemorrhage, pulmonary embolism, aortic dissection, free air and
others) that it is there now. So are "unchanged", "only partly resolved" and
"cannot be excluded", since each calls for action. Negated, excluded and
resolved findings are not there; requests and histories ("rule out
pneumothorax") say nothing of what is there.

Nine negative reports in ten deny a critical finding, and every sentence that
serves critical findings serves others too, so that single words decide little.

The splits share the names of the findings; no sentence of one is in the other.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radserve_export.synthetic import Sample, Split, _report_chinese, _report_english, _report_held_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.synthetic._report_grammar import Finding, Phrases

CRITICAL_FINDING = "critical_finding"
LABELS = (CRITICAL_FINDING,)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(a )?([a-z]+)\d?\}")
_NO_ARTICLE = re.compile(
    r"^bilateral|(air|diaphragm|emboli|peritoneum|atelectasis|cardiomegaly|pneumonia|emphysema|fibrosis|atheroma"
    r"|atrophy|thickening|sinusitis|fluid|ascites|diverticulosis|gas|scoliosis|calcification|compression)$",
)
# Sentences beside the one that decides: many reports are one line, a few are long.
_EXTRA_SENTENCES = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 10)
_BENIGN_THERE = 6
# The tables are typed with half-width marks; Chinese reports mostly have full-width ones.
_FULL_WIDTH = str.maketrans(",;:?()", "\uff0c\uff1b\uff1a\uff1f\uff08\uff09")


@dataclass(frozen=True, kw_only=True)
class _Language:
    critical: tuple[Finding, ...]
    benign: tuple[Finding, ...]
    phrases: dict[Split, Phrases]
    stops: tuple[str, ...]
    gap: str
    quality_first: bool


_ENGLISH = _Language(
    critical=_report_english.CRITICAL,
    benign=_report_english.BENIGN,
    phrases={Split.TRAIN: _report_english.TRAIN, Split.TEST: _report_held_out.ENGLISH},
    stops=(".", ".", ".", ";"),
    gap=" ",
    quality_first=True,
)
_CHINESE = _Language(
    critical=_report_chinese.CRITICAL,
    benign=_report_chinese.BENIGN,
    phrases={Split.TRAIN: _report_chinese.TRAIN, Split.TEST: _report_held_out.CHINESE},
    stops=("。", "。", "。", ";", ","),
    gap="",
    quality_first=False,
)


def generate(count: int, *, seed: int, split: Split) -> Iterator[Sample]:
    """Generate reports: each four hold two in each language and two with a critical finding.

    Args:
        count: How many.
        seed: The same seed yields the same reports.
        split: Whose sentences to use.

    Yields:
        Reports of one line to about 200 tokens, labelled ``"critical_finding"`` or ``""``.
    """
    rng = random.Random(f"report_triage {split.value} {seed}")  # noqa: S311 - reports are not secrets
    kinds: list[tuple[_Language, bool]] = []
    for _ in range(count):
        if not kinds:
            kinds = [(language, critical) for language in (_ENGLISH, _CHINESE) for critical in (True, False)]
            rng.shuffle(kinds)
        language, critical = kinds.pop()
        text = _Report(rng, language, split, critical=critical).write()
        yield Sample(source=text, label=CRITICAL_FINDING if critical else "")


class _Report:
    """One report in the making; what is there and what is not is settled first."""

    def __init__(self, rng: random.Random, language: _Language, split: Split, *, critical: bool) -> None:
        self._rng = rng
        self._language = language
        self._phrases = language.phrases[split]
        self._critical = critical
        self._subject, *others = rng.sample(language.critical, len(language.critical))
        benign = rng.sample(language.benign, len(language.benign))
        self._there, not_there = benign[:_BENIGN_THERE], benign[_BENIGN_THERE:]
        # As often critical as not, though there are fewer critical findings.
        self._not_there = others + not_there[: len(others)]
        self._denied = self._chance(0.9)

    def write(self) -> str:
        """The report's text."""
        rng = self._rng
        extra = rng.choice(_EXTRA_SENTENCES)
        body = [self._decisive()]
        if extra:
            # The mirror image of the decisive sentence, so that counting negations tells little.
            phrases = self._phrases.absent if self._critical else self._phrases.present
            body += [self._say(phrases), *(self._filler() for _ in range(extra - 1))]
            rng.shuffle(body)
        history = [self._say(self._phrases.past)] if self._chance(0.3) else []
        summary = [self._decisive()] if extra > 1 and self._chance(0.4) else []
        text = self._lay_out(history, body, summary)
        return text.translate(_FULL_WIDTH) if self._language is _CHINESE and self._chance(0.8) else text

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _decisive(self) -> str:
        phrases = self._phrases
        if self._critical:
            return self._say(phrases.contrast if self._chance(0.15) else phrases.present, present=self._subject)
        if self._denied:
            return self._say(phrases.contrast if self._chance(0.15) else phrases.absent, absent=self._subject)
        return self._say(phrases.present if self._chance(0.5) else phrases.neutral)

    def _filler(self) -> str:
        phrases = self._phrases
        kinds = (phrases.neutral, phrases.absent, phrases.present, phrases.contrast, phrases.past)
        return self._say(self._rng.choices(kinds, weights=(6, 5, 3, 3, 2))[0])

    def _say(self, templates: tuple[str, ...], *, present: Finding | None = None, absent: Finding | None = None) -> str:
        rng = self._rng
        there = present or rng.choice(self._there)
        not_there = rng.sample(self._not_there, 3)
        if absent:
            not_there.insert(0, absent)
        past = rng.choice(self._language.critical if self._chance(0.8) else self._language.benign)

        def fill(match: re.Match[str]) -> str:
            article, slot = match.groups()
            if slot == "n":
                return str(rng.randint(1, 60))
            if slot == "present":
                named = self._name(there, quality=0.5, place=0.6)
            else:
                named = self._name(past if slot == "past" else not_there.pop(0), quality=0.0, place=0.25)
            return f"{_article(named)}{named}" if article else named

        template = rng.choice(templates)
        if templates in (self._phrases.present, self._phrases.absent) and self._chance(0.15):
            template = rng.choice(self._phrases.openings) + template
        text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
        return " ".join(_SLOT.sub(fill, text).split())

    def _name(self, finding: Finding, *, quality: float, place: float) -> str:
        rng = self._rng
        qualities = [rng.choice(finding.qualities)] if finding.qualities and self._chance(quality) else []
        places = [rng.choice(finding.places)] if finding.places and self._chance(place) else []
        before = qualities + places if self._language.quality_first else places + qualities
        return self._language.gap.join([*before, rng.choice(finding.names)])

    def _lay_out(self, history: list[str], body: list[str], summary: list[str]) -> str:
        parts = [
            (heading, [self._finish(sentence) for sentence in sentences])
            for heading, sentences in zip(self._phrases.headings, (history, body, summary), strict=True)
            if sentences
        ]
        gap = self._language.gap
        style = self._rng.choice(("plain", "plain", "headed", "numbered"))
        if style == "plain" or len(body) == 1:
            return gap.join(sentence for _, sentences in parts for sentence in sentences)
        if style == "numbered":
            parts = [(head, [f"{i}. {said}" for i, said in enumerate(sentences, 1)]) for head, sentences in parts]
        return "\n".join(f"{heading}{gap}{gap.join(sentences)}" for heading, sentences in parts)

    def _finish(self, sentence: str) -> str:
        stop = "" if sentence.endswith("?") else self._rng.choice(self._language.stops)
        return f"{sentence[0].upper()}{sentence[1:]}{stop}"


def _article(named: str) -> str:
    if _NO_ARTICLE.search(named):
        return ""
    return "an " if named[0] in "aeiou" else "a "
