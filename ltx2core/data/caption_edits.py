"""What is done to captions before they are encoded: words taken out, and tags put in other orders."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

_SED = re.compile(r"s/((?:[^/\\]|\\.)*)/((?:[^/\\]|\\.)*)/?")
_SEPARATORS = {"comma": (",", ", "), "space": (None, " "), "period": (".", ". ")}
_TRIES = 20  # for each variant: few tags have few orders


@dataclass(frozen=True, slots=True)
class CaptionEdit:
    """A pattern, what its matches are replaced by, and how many of them: 0 for all."""

    pattern: re.Pattern[str]
    by: str
    most: int

    @classmethod
    def parse(cls, line: str) -> CaptionEdit:
        """The edit of a filter's line: `s/this/that/` replaces the first match, any other line is removed wherever it matches.

        Raises re.error for what is no regular expression.
        """
        if (match := _SED.fullmatch(line)) is None:
            return cls(re.compile(line), "", 0)
        pattern, by = re.compile(match[1].replace("\\/", "/")), match[2].replace("\\/", "/")
        pattern.sub(by, "")  # raises for a group in the replacement that the pattern does not have
        return cls(pattern, by, 1)

    def __call__(self, caption: str) -> str:
        return " ".join(self.pattern.sub(self.by, caption, count=self.most).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """Variants of a caption that is a list of tags: `count` orders of them, the first `fixed` tags in their places."""

    count: int = 1
    seed: int = 0
    split_on: Literal["comma", "space", "period"] = "comma"
    fixed: int = 0
    keep_original: bool = True

    def variants(self, caption: str) -> tuple[str, ...]:
        """The caption, unless it is not kept, and its variants; the caption alone where fewer than two tags can move."""
        split_at, join_by = _SEPARATORS[self.split_on]
        tags = [tag.strip() for tag in caption.split(split_at) if tag.strip()]
        if len(tags) < self.fixed + 2:
            return (caption,)
        head, tail = tags[: self.fixed], tags[self.fixed :]
        draw = random.Random(f"{self.seed}/{caption}")
        found: dict[str, None] = {}
        for _ in range(self.count * _TRIES):
            if len(found) == self.count:
                break
            variant = join_by.join([*head, *draw.sample(tail, len(tail))])
            if variant != join_by.join(tags):
                found[variant] = None
        return (caption, *found) if self.keep_original or not found else tuple(found)
