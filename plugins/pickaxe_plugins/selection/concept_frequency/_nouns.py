"""Lemmas of the nouns of a text by a few rules for English; anything else with the same two methods may stand in."""

from __future__ import annotations

import re
from typing import Protocol


class Tagger(Protocol):
    """Turns texts into sets of lemmas; `name` goes into artifacts and changes with the results."""

    name: str

    def lemma(self, word: str) -> str:
        """The lemma of one lower-case word that stands alone."""

    def lemmas(self, text: str, nouns_only: bool) -> set[str]:
        """Lower-case lemmas of letters only: of the nouns and names of the text, or of all its words."""


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[^\W\d_]+")
_OTHERS = _listed(
    """
    a an the this that these those some any no every each all both few many much more most other another such
    own same i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    who whom whose which what one two three four five six seven eight nine ten and or but nor so yet if then
    than as because while although of in on at by for with from to into onto over under above below between
    among through during before after behind beside near next off out up down about around across along against
    without within toward towards upon via per is are was were be been being am has have had having do does did
    doing done can could may might must shall should will would not also just only very too here there where
    when why how again once still even ever never always often get gets got make makes made go goes went gone
    come comes came take takes took see sees saw seen look looks show shows shown sit sits stand stands run runs
    ride rides eat eats hold holds wear wears fly flies lie lies has use uses used using including sitting
    standing running riding eating holding wearing looking making taking showing flying lying walking playing
    hanging s t d m re ve ll new old good bad big small large little long short high low young beautiful red
    blue green black white yellow brown grey gray pink purple
    """
)
"""Words that are seldom nouns: function words, and the commonest verbs and adjectives of captions."""
_LY_NOUNS = _listed("ally assembly belly bully butterfly dragonfly family fly italy jelly lily monopoly reply")
_IRREGULAR = dict(
    pair.split(":")
    for pair in _listed(
        """
        men:man women:woman children:child people:person feet:foot teeth:tooth geese:goose mice:mouse oxen:ox
        dice:die wolves:wolf leaves:leaf knives:knife shelves:shelf wives:wife lives:life halves:half loaves:loaf
        calves:calf thieves:thief scarves:scarf hooves:hoof elves:elf selves:self buses:bus gases:gas lenses:lens
        movies:movie cookies:cookie ties:tie pies:pie zombies:zombie brownies:brownie shoes:shoe toes:toe
        canoes:canoe horseshoes:horseshoe axes:axe aches:ache headaches:headache caches:cache cacti:cactus
        fungi:fungus alumni:alumnus analyses:analysis crises:crisis bases:base
        """
    )
)
_UNCHANGED = _listed(
    """
    lens gas series species news always perhaps jeans pants shorts scissors trousers clothes goggles binoculars
    christmas texas kansas paris athens canvas atlas pancreas pyjamas pajamas mathematics physics politics
    sports
    """
)


class Rules:
    """Plural endings and a list of words that are no nouns."""

    name = "rules 1"

    def lemma(self, word: str) -> str:
        if word in _IRREGULAR:
            return _IRREGULAR[word]
        if len(word) < 4 or word in _UNCHANGED or not word.endswith("s"):
            return f"{word[:-3]}man" if len(word) > 5 and word.endswith(("smen", "rmen", "omen", "emen")) else word
        if word.endswith(("ss", "us", "is")):
            return word
        if word.endswith("ies"):
            return f"{word[:-3]}y"
        if word.endswith(("sses", "shes", "ches", "xes", "zzes", "oes")):
            return word[:-2]
        return word[:-1]

    def lemmas(self, text: str, nouns_only: bool) -> set[str]:
        words = set(_WORD.findall(text.lower()))
        return {self.lemma(word) for word in words if not nouns_only or self._may_be_noun(word)}

    def _may_be_noun(self, word: str) -> bool:
        if word in _OTHERS or (len(word) > 5 and word.endswith("ous")):
            return False
        return not word.endswith("ly") or word in _LY_NOUNS
