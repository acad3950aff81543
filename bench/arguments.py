"""What the commands take: types for argparse."""

import argparse

from bench.cases import MODES, NAMES


def names(text: str) -> list[str]:
    """With commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def groups(text: str) -> list[str]:
    """Some of `NAMES`."""
    return _some_of(NAMES, text)


def modes(text: str) -> list[str]:
    """Some of `MODES`."""
    return _some_of(MODES, text)


def _some_of(known: tuple[str, ...], text: str) -> list[str]:
    asked = names(text)
    if not asked or set(asked) - set(known):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {text!r}")
    return asked
