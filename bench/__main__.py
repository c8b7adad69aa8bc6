"""Runs the questions and prints one table: python -m bench [question ...] [--toy]."""

import argparse
import importlib

from bench.measure import HEAD, row

QUESTIONS = ("snip", "overlaps", "storage", "planning", "startup", "gpu")


def main() -> None:
    """Ask the questions named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parser.add_argument("--toy", action="store_true", help="sizes of seconds, to see that it runs")
    asked = parser.parse_args()
    unknown = set(asked.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"unknown question {', '.join(sorted(unknown))}; available: {', '.join(QUESTIONS)}")
    # Not at the top: the processes that measure memory import this file, and should not import torch with it.
    from bench.machine import hardware, versions

    print(f"{hardware()}\n{versions()}\n\n{HEAD}")
    for name in asked.questions or QUESTIONS:
        question = importlib.import_module(f"bench.{name}")
        for figure in question.run(question.TOY if asked.toy else question.FULL):
            print(row(figure), flush=True)


if __name__ == "__main__":
    main()
