"""What a text generator answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radserve.results._result import Result

if TYPE_CHECKING:
    from radserve.results._display import View


@dataclass(frozen=True, kw_only=True, repr=False)
class GeneratedText(Result):
    """A text generator's answer.

    Attributes:
        text: What it wrote.
        is_complete: False where it was cut off at its longest length: show it with a warning.
        log_probability: Sum of the logarithms of its tokens' probabilities.
    """

    text: str
    is_complete: bool
    log_probability: float

    def __repr__(self) -> str:
        cut = "" if self.is_complete else ", cut off"
        return f"<GeneratedText by {self.model} {self.version}: {len(self.text)} characters{cut}>"

    def _view(self) -> View:
        from radserve.results._display import View  # noqa: PLC0415 - brings NumPy

        text = self.text if self.is_complete else f"{self.text} [cut off]"
        return View(
            title=f"{self.model} {self.version}", columns=("text",), rows=((text,),), note=self.provenance.intended_use
        )

    def _content(self) -> dict[str, Any]:
        return {"text": self.text, "is_complete": self.is_complete, "log_probability": self.log_probability}
