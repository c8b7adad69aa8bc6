"""Find keys that a YAML or JSON text gives twice; a parser keeps the last value and says nothing."""

import json
from collections.abc import Iterator

import yaml

from safety_regions.errors import StudyError, explain

# The parser in C is ten times faster. PyYAML has it wherever it was built with libyaml, as its wheels are.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str, where: str) -> object:
    """The document of a YAML text.

    Raises:
        StudyError: the text is not valid YAML, or gives a key twice; messages start with ``where``.
    """
    loader = LOADER(text)
    try:
        root = loader.get_single_node()
        document = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError comes from a date such as 2024-13-01
        mark = getattr(error, "problem_mark", None)
        found = f"broken YAML in line {mark.line + 1}" if mark else "broken YAML"
        raise StudyError(explain(where, found, "a YAML mapping")) from None
    finally:
        loader.dispose()
    problems = list(_repeated(root, where))
    if problems:
        raise StudyError("; ".join(problems))
    return document


def repeated_keys(text: str, where: str) -> list[str]:
    """One sentence for each key that occurs twice in a mapping; none if the text is not valid YAML or JSON."""
    try:
        root = yaml.compose(_spaces(text), Loader=LOADER)
    except yaml.YAMLError:
        return []  # who reads the document says what is wrong with it
    return list(_repeated(root, where))


def _spaces(text: str) -> str:
    """A JSON text with spaces instead of tabs, which YAML does not allow; any other text unchanged."""
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")


def _repeated(node: yaml.Node | None, where: str) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _repeated(item, f"{where}: {number}")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[object, list[int]] = {}
    for key, value in node.value:
        place = key.value if isinstance(key.value, str) else "?"
        lines.setdefault((key.tag, place), []).append(key.start_mark.line + 1)
        yield from _repeated(value, f"{where}: {place}")
    for (_, place), at in lines.items():
        if len(at) > 1 and place != "?":
            yield explain(
                f"{where}: {place}", f"this key in lines {', '.join(map(str, at))}", "each key once"
            )
