"""Pages from templates: ``templates/*.html.j2``, filled in; every value is escaped."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Table(NamedTuple):
    """Texts in rows and columns; the columns named in ``numbers`` stand to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[str] = ()


def render(template: str, **values: object) -> str:
    """A whole HTML page.

    Args:
        template: a file of the folder ``templates`` beside this module.
        values: all that the template names.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, **layout
    )
