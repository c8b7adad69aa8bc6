"""Answer the benchmark questions and print one table: python -m bench [question ...] [--toy]."""

import argparse
import importlib

from bench.measure import HEAD, row

QUESTIONS = ("snip", "chat", "methods", "overlaps", "storage", "planning", "startup", "gpu")


def main() -> None:
    """Answer the questions named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parser.add_argument("--toy", action="store_true", help="use toy sizes, to check that everything runs")
    asked = parser.parse_args()
    unknown = set(asked.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"unknown question {', '.join(sorted(unknown))}; available: {', '.join(QUESTIONS)}")
    # Import here, not at the top: the processes that measure memory import this file and must not import torch.
    from bench.machine import hardware, versions

    print(f"{hardware()}\n{versions()}\n\n{HEAD}")
    for name in asked.questions or QUESTIONS:
        question = importlib.import_module(f"bench.{name}")
        for figure in question.run(question.TOY if asked.toy else question.FULL):
            print(row(figure), flush=True)


if __name__ == "__main__":
    main()
