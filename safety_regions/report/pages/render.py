"""Render pages from the templates ``templates/*.html.j2``; every value is escaped."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Table(NamedTuple):
    """Texts in rows and columns; the columns named in ``numbers`` are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()


def render(template: str, **values: object) -> str:
    """Render a complete HTML page.

    Args:
        template: name of a file in the folder ``templates`` next to this module.
        values: every value that the template uses.

    Raises:
        jinja2.UndefinedError: a value that the template uses is missing.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, **layout
    )
