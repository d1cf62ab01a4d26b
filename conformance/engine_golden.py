"""Golden values for the engine and for perplexity, by transformers on a CPU.

    engine_golden.py --check    computes them afresh and compares them with the stored files
    engine_golden.py --write    writes them
"""

import argparse
import sys

import golden_chat
import golden_figures
import golden_models
import golden_trained
from golden_configs import cases
from support import ENGINE_GOLDEN

# Summation order differs between processors and versions of torch.
TOLERANCE = 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--write", action="store_true")
    parser.add_argument("--only", help="just the small models with this in their name")
    parser.add_argument("--finetune", help="what examples/finetune.delta rebuilds, if it is at hand")
    arguments = parser.parse_args()
    problems = []
    for case in cases():
        if arguments.only and arguments.only not in case.name:
            continue
        folder = ENGINE_GOLDEN / case.name
        if arguments.write:
            folder.parent.mkdir(parents=True, exist_ok=True)
            golden_models.write(case, folder)
        problems += golden_models.check(case, folder, TOLERANCE)
    if not arguments.only:
        if arguments.write:
            golden_chat.write()
            golden_trained.write()
            golden_figures.write(arguments.finetune)
        problems += golden_chat.check() + golden_trained.check(TOLERANCE)
        problems += golden_figures.check(arguments.finetune)
    print("\n".join(problems) or "all golden values hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
