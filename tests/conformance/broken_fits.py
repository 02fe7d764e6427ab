"""Methods whose fit has one fault each."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from broken import fails
from good import GoodScorer

from pickaxe import Progress, Scores, hookimpl


class Fits(GoodScorer):
    """A scorer whose fit is changed; merging stays out of it."""

    merge = None

    def write(self, out: Any, words: Any, **notes: Any) -> Progress:
        """Write what the scorer reads."""
        out.write_json("words.json", sorted(words))
        out.notes.update(notes)
        return Progress("write", 1, 1)

    def seen(self, examples: Any) -> set[str]:
        return {word for item in examples for word in self.words(item.text)}


@fails("fit.progress")
class Backwards(Fits):
    """Reports its stages in the wrong order."""

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        yield self.write(out, self.seen(examples))
        yield Progress("count", 1, 1)


@fails("fit.progress")
class Overshoots(Fits):
    """Goes beyond its own total."""

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        yield Progress("count", 5, 3)
        yield self.write(out, self.seen(examples))


@fails("fit.again", "fit.one_pass", "fit.resume")
class Stamped(Fits):
    """Writes down which fit this was."""

    fits = count()

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        yield self.write(out, self.seen(examples), number=next(self.fits))


@fails("fit.one_pass")
class TwoEpochs(Fits):
    """Reads examples a second time although they may come only once."""

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        for row, _ in enumerate(examples):
            yield Progress("count", row + 1)
        yield self.write(out, self.seen(examples))


@fails("fit.resume")
class ForgetsHalf(Fits):
    """Says that a stage is finished before all of it is written."""

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        if not out.done("count"):
            words = self.seen(examples)
            self.write(out, sorted(words)[:1])
            out.finish("count")
            yield Progress("count", 1, 1)
            self.write(out, words)
        yield Progress("write", 1, 1)


@fails("fit.cancel_leaves_nothing", "fit.resume")
class WritesAtTheTarget(Fits):
    """Puts files where the artifact will be, long before it is whole."""

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        target = out.path.with_name(out.path.name.removesuffix(".partial"))
        target.mkdir(exist_ok=True)
        yield Progress("count", 1, 2)
        yield Progress("count", 2, 2)
        target.rmdir()
        yield self.write(out, self.seen(examples))


@fails("fit.digests")
class KeepsACache(Fits):
    """Writes into the artifact when it scores."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        if self.artifact:
            (self.artifact.path / "cache.json").write_text("{}")
        return super().score(items, call)


@fails("fit.digests")
class NotesOnly(Fits):
    """Keeps what it learned in the notes of the manifest, where no digest guards it."""

    def known(self) -> set[str]:
        return set(self.artifact.notes["words"]) if self.artifact else set()

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        out.notes["words"] = sorted(self.seen(examples))
        yield Progress("count", 1, 1)


@fails("fit.elsewhere_without_training_libraries")
class StaysAtHome(Fits):
    """Keeps what it learned in the process that learned it."""

    learned: set[str] = set()

    def known(self) -> set[str]:
        return self.learned

    @hookimpl
    def fit(self, examples: Any, out: Any) -> Iterator[Progress]:
        self.learned.update(self.seen(examples))
        yield self.write(out, self.learned)


@fails("fit.elsewhere_without_training_libraries")
class NeedsJax(Fits):
    """Imports a training library when it scores."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        try:
            import jax  # noqa: F401
        except ModuleNotFoundError as error:
            if "None in sys.modules" in str(error):
                raise
        return super().score(items, call)


@fails("fit.merge")
class MergesOne(GoodScorer):
    """Takes the first of the artifacts that it should add up."""

    @hookimpl
    def merge(self, artifacts: Any, out: Any) -> Iterator[Progress]:
        out.write_json("words.json", artifacts[0].read_json("words.json"))
        yield Progress("write", 1, 1)
