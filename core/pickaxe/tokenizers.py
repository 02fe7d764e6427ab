"""Text to token ids and back, for WordPiece and byte-level BPE, with the model's chat template."""

from __future__ import annotations

import codecs
import datetime
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickaxe.errors import InvalidItems, ModelMissing, Unmet
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe.data import Message

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GGUF_SPLITS = {
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _WORDS.replace("DIGITS", "{1,3}"),
    "qwen2": _WORDS.replace("DIGITS", ""),
}
"""`tokenizer.ggml.pre` → the pattern that cuts text into words; None: GPT-2's own, built into `ByteLevel`."""

_END_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "</s>")
_CONTROL, _USER_DEFINED = 3, 4  # gguf token types


@dataclass(frozen=True)
class _Settings:
    """What a tokenizer needs to know beyond its vocabulary; saved as JSON beside it."""

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    chat_template: str | None = None


class Tokenizer:
    """A model's tokenizer.  Safe to use from several threads.

    Special tokens that occur in a text are plain text unless `parse_special` is asked for.
    """

    def __init__(self, definition: str, settings: _Settings) -> None:
        """`definition` is the content of a `tokenizer.json`."""
        kind = require("tokenizers", extra="cpu").Tokenizer
        self._plain, self._parsing = kind.from_str(definition), kind.from_str(definition)
        for tokenizer in (self._plain, self._parsing):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._plain.encode_special_tokens = True
        self._settings = settings
        added = self._plain.get_added_tokens_decoder()
        self._special = {index: token.content for index, token in added.items() if token.special}
        self._byte_level = '"ByteLevel"' in json.dumps(json.loads(definition).get("decoder"))

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """From a directory with `tokenizer.json` or a GGUF file in it, or from one of these files."""
        if path.is_dir():
            found = [path / "tokenizer.json"] if (path / "tokenizer.json").is_file() else []
            path = next(iter(found + sorted(path.glob("*.gguf"))), path)
        if path.suffix == ".gguf" and path.is_file():
            return cls._from_gguf(path)
        if path.suffix == ".json" and path.is_file():
            return cls(path.read_text(encoding="utf-8"), _read_settings(path))
        raise ModelMissing(f"no tokenizer.json and no .gguf file in {path}", metadata={"path": path})

    @classmethod
    def _from_gguf(cls, path: Path) -> Tokenizer:
        fields = require("gguf", extra="cpu").GGUFReader(str(path)).fields
        found = {
            name.removeprefix("tokenizer."): entry.contents()
            for name, entry in fields.items()
            if name.startswith("tokenizer.")
        }
        return cls.from_gguf_metadata(found)

    @classmethod
    def from_gguf_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From the `tokenizer.*` entries of a GGUF file, named without that prefix (`ggml.tokens` …)."""
        tokens: Sequence[str] = metadata["ggml.tokens"]
        ends = [metadata.get(f"ggml.{name}_token_id") for name in ("eos", "eot")]
        ends += [index for index, token in enumerate(tokens) if token in _END_TOKENS]
        settings = _Settings(
            bos_id=metadata.get("ggml.bos_token_id"),
            eos_ids=tuple(dict.fromkeys(int(index) for index in ends if index is not None)),
            chat_template=metadata.get("chat_template"),
        )
        return cls(_gguf_definition(metadata), settings)

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; opening these is much faster than a GGUF file."""
        self._parsing.save(str(directory / "tokenizer.json"))
        settings = {"pickaxe": asdict(self._settings)}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    # ------------------------------------------------------------ text to ids

    def encode(self, text: str, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids; `add_special` adds what the model puts around a text ([CLS] …, a start token).

        Bytes for which the vocabulary has no token are left out (in SmolLM2's, six control characters and the
        unassigned planes above U+3FFFF).
        """
        chosen = self._parsing if parse_special else self._plain
        ids: list[int] = chosen.encode(_sound(text), add_special_tokens=add_special).ids
        return ids

    def encode_batch(
        self, texts: Sequence[str], add_special: bool = False, parse_special: bool = False
    ) -> list[list[int]]:
        chosen = self._parsing if parse_special else self._plain
        sound = [_sound(text) for text in texts]
        return [row.ids for row in chosen.encode_batch_fast(sound, add_special_tokens=add_special)]

    @functools.cached_property
    def pair(self) -> tuple[list[int], list[int]]:
        """Ids and segments of what the model puts around two texts, e.g. [CLS] [SEP] [SEP] and 0 0 1; may be empty."""
        encoded = self._plain.encode("", "", add_special_tokens=True)
        return list(encoded.ids), list(encoded.type_ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of each token of `encode(text)`; tokens that share a character share its place."""
        found: list[tuple[int, int]] = self._plain.encode(_sound(text), add_special_tokens=False).offsets
        return found

    def token_to_id(self, token: str) -> int | None:
        index: int | None = self._plain.token_to_id(token)
        return index

    # ------------------------------------------------------------ ids to text

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        if not self._byte_level:
            text: str = self._plain.decode(list(ids), skip_special_tokens=skip_special)
            return text
        kept = (index for index in ids if not (skip_special and index in self._special))
        return b"".join(map(self.id_to_bytes, kept)).decode("utf-8", "replace")

    def id_to_bytes(self, index: int) -> bytes:
        """The bytes that the token stands for; empty for an id without a token."""
        return self._bytes[index] if 0 <= index < len(self._bytes) else b""

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        special = self._special
        pieces = [self._plain.id_to_token(index) or "" for index in range(self.vocab_size)]
        convert = _byte_level_bytes if self._byte_level else _piece_bytes
        return [piece.encode() if index in special else convert(piece) for index, piece in enumerate(pieces)]

    # ------------------------------------------------------------ facts

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(self._plain.get_vocab(with_added_tokens=True).values())

    @property
    def bos_id(self) -> int | None:
        return self._settings.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a text or a turn, the model's declared one first."""
        return self._settings.eos_ids

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._special)

    @functools.cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token as the model writes it ("##ing", "Ġthe", "[CLS]") and its id."""
        found: Mapping[str, int] = self._plain.get_vocab(with_added_tokens=True)
        return found

    @functools.cached_property
    def digest(self) -> str:
        """Equal for two models exactly when every id means the same token in both."""
        return hashlib.sha256(
            json.dumps(sorted((index, token) for token, index in self.vocabulary.items())).encode()
        ).hexdigest()

    # ------------------------------------------------------------ chat

    def chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The messages as the model's chat template writes them.

        Special tokens in contents cannot be told from the template's own in the result: use `encode_chat`.
        """
        return self._render([(turn.role, turn.content) for turn in messages], add_generation_prompt)

    def encode_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Ids of the chat; the template's special tokens are parsed, those in contents stay plain text."""
        # A text cannot hold its own hash, so this fences the places of special tokens in contents.
        fence = hashlib.sha256(repr(messages).encode("utf-8", "replace")).hexdigest()[:32]
        names = sorted(self._special.values(), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        turns = [
            (turn.role, pattern.sub(lambda match: f"{fence}<{names.index(match[0])}>", turn.content))
            for turn in messages
        ]
        ids: list[int] = []
        for place, part in enumerate(re.split(f"{fence}<([0-9]+)>", self._render(turns, add_generation_prompt))):
            ids += self.encode(names[int(part)]) if place % 2 else self.encode(part, parse_special=True)
        return ids

    def _render(self, turns: Sequence[tuple[str, str]], add_generation_prompt: bool) -> str:
        jinja2 = require("jinja2", extra="cpu")
        try:
            text: str = self._template.render(
                messages=[{"role": role, "content": content} for role, content in turns],
                add_generation_prompt=add_generation_prompt,
                bos_token=self._token(self.bos_id),
                eos_token=self._token(next(iter(self.eos_ids), None)),
            )
        except jinja2.TemplateError as error:
            raise InvalidItems("messages", f"are refused by the model's chat template: {error}") from error
        return text

    @functools.cached_property
    def _template(self) -> Any:
        if self._settings.chat_template is None:
            raise Unmet("this model has no chat template: give the prompt as text instead of messages")
        jinja2, sandbox = require("jinja2", extra="cpu"), require("jinja2.sandbox", extra="cpu")

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        return environment.from_string(self._settings.chat_template)

    def _token(self, index: int | None) -> str:
        return "" if index is None else self._plain.id_to_token(index) or ""


class StreamDecoder:
    """Text of tokens that come one after the other, never cut inside a character."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; bytes of an unfinished character are held back."""
        kept = (index for index in ids if index not in self._skipped)
        return self._decoder.decode(b"".join(map(self._tokenizer.id_to_bytes, kept)))

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        return self._decoder.decode(b"", final=True)


def _sound(text: str) -> str:
    """Lone surrogates cannot be encoded: they become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _byte_of() -> dict[str, int]:
    """GPT-2's printable character for each byte, reversed: bytes that print stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _byte_level_bytes(piece: str) -> bytes:
    table = _byte_of()
    if all(char in table for char in piece):
        return bytes(table[char] for char in piece)
    return piece.encode()  # an added token, stored as it is


def _piece_bytes(piece: str) -> bytes:
    if match := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return bytes([int(match[1], 16)])
    return piece.removeprefix("##").replace("\u2581", " ").encode()


def _gguf_definition(metadata: Mapping[str, Any]) -> str:
    """The `tokenizer.json` that a GGUF file's entries describe."""
    kind, split = metadata.get("ggml.model"), metadata.get("ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in _GGUF_SPLITS:
        raise Unmet(
            f"this GGUF file has a tokenizer of kind {kind!r} with word splitting {split!r}; known is 'gpt2' with "
            f"{', '.join(_GGUF_SPLITS)}. Use a safetensors checkpoint with a tokenizer.json instead",
            metadata={"kind": kind, "pre": split},
        )
    library = require("tokenizers", extra="cpu")
    tokens = metadata["ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in metadata["ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = library.models.BPE(vocab=vocabulary, merges=merges, ignore_merges=split == "llama-bpe")
    built = library.Tokenizer(model)
    built.pre_tokenizer = _pre_tokenizer(library, split)
    built.decoder = library.decoders.ByteLevel()
    if split == "qwen2":
        built.normalizer = library.normalizers.NFC()
    types = list(zip(tokens, metadata["ggml.token_type"], strict=True))
    built.add_special_tokens(
        [library.AddedToken(token, special=True, normalized=False) for token, kind in types if kind == _CONTROL]
    )
    built.add_tokens([library.AddedToken(token, normalized=False) for token, kind in types if kind == _USER_DEFINED])
    if metadata.get("ggml.add_bos_token"):
        start = tokens[metadata["ggml.bos_token_id"]]
        built.post_processor = library.processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, metadata["ggml.bos_token_id"])]
        )
    definition: str = built.to_str()
    return definition


def _pre_tokenizer(library: Any, split: str) -> Any:
    parts = library.pre_tokenizers
    pattern = _GGUF_SPLITS[split]
    if pattern is not None:
        words = parts.Split(library.Regex(pattern), behavior="isolated")
        return parts.Sequence([words, parts.ByteLevel(add_prefix_space=False, use_regex=False)])
    byte_level = parts.ByteLevel(add_prefix_space=False)
    return parts.Sequence([parts.Digits(individual_digits=True), byte_level]) if split == "smollm" else byte_level


def _read_settings(path: Path) -> _Settings:
    """From the JSON files that lie beside a tokenizer.json: start and end tokens, the chat template."""
    config = _read_json(path.parent / "tokenizer_config.json")
    if "pickaxe" in config:
        saved = config["pickaxe"]
        return _Settings(saved["bos_id"], tuple(saved["eos_ids"]), saved["chat_template"])
    definition = _read_json(path)
    ids = {entry["content"]: entry["id"] for entry in definition.get("added_tokens", [])}
    ends = _read_json(path.parent / "generation_config.json").get("eos_token_id", [])
    declared = [ids.get(_content(config.get("eos_token")))]
    declared += ends if isinstance(ends, list) else [ends]
    declared += [ids.get(token) for token in _END_TOKENS]
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    beside = path.parent / "chat_template.jinja"
    return _Settings(
        bos_id=ids.get(_content(config.get("bos_token"))),
        eos_ids=tuple(dict.fromkeys(index for index in declared if index is not None)),
        chat_template=beside.read_text(encoding="utf-8") if beside.is_file() else template,
    )


def _content(token: str | Mapping[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, Mapping) else token


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
