"""``python -m benchmarks``: asks the questions and writes figures, a table and plots."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import contenders, machine, plots, questions, report, world
from benchmarks.bench import Bench
from benchmarks.figures import Answer

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure what is asked for."""
    arguments = _arguments()
    console = Console()
    absent = contenders.missing(list(contenders.MODULES))
    for name, reason in absent.items():
        console.print(f"[yellow]skipped: {name}[/] ({reason})", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    answers: list[Answer] = []
    begin = time.monotonic()
    with Progress(*columns, console=console) as progress, world.made() as made:
        bench = Bench(made, progress, quick=arguments.quick, absent=list(absent), items=arguments.items)
        for name in arguments.only:
            answer = questions.load(name).run(bench)
            answers.append(answer)
            for note in answer.notes:
                progress.console.print(note, highlight=False)
        about = machine.about(made.client("embedqueue"), quick=arguments.quick)
    about["minutes"] = round((time.monotonic() - begin) / 60, 1)
    report.write(arguments.out, answers, about)
    plots.draw(arguments.out, answers)
    console.print(report.markdown(answers, about), highlight=False, markup=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes: fewer repetitions and situations")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*questions.NAMES, *questions.WHEN_NAMED),
        metavar="QUESTION",
        help=f"ask only this, may be repeated: {', '.join(questions.NAMES)}; "
        f"and, only when it is named, {', '.join(questions.WHEN_NAMED)}",
    )
    parser.add_argument("--items", type=int, default=0, help="that wait in the question millions (default 10,000,000)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    arguments.only = arguments.only or list(questions.NAMES)
    return arguments


if __name__ == "__main__":
    main()
