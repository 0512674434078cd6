"""A process that does tasks: `python -m brokering.worker FOLDER` reads them from standard input until that ends."""

import os
import pickle
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from brokering.executors import Files
from brokering.tasks import do


def main() -> None:
    """Answers every list of tasks with ("done", results) or ("failed", text)."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what solvers print is no answer
    files, kept = Files(Path(sys.argv[1])), dict[Any, Any]()
    while True:
        try:
            tasks = pickle.load(sys.stdin.buffer)
        except EOFError:  # whoever gave the tasks has ended, perhaps without a word: nothing is left behind
            shutil.rmtree(files.folder, ignore_errors=True)
            return
        try:
            answer = ("done", [do(task, files, kept) for task in tasks])
        except Exception:
            answer = ("failed", traceback.format_exc())  # type: ignore[assignment]
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    main()
