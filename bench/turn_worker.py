"""One of the two processes of `bench.old_new`: takes turns with the fastlstm that it imports.

Commands and answers are lines of JSON. It begins by saying which fastlstm it has, and on which
kernels it runs. A command of a case and a mode is answered with the sum of the result's absolute
values, "turn" with the seconds that a call took.
"""

import json
import sys
from functools import partial

import fastlstm as fl
from bench.cases import Case
from bench.peers import FastLSTM
from bench.problem import make_problem
from bench.timing import results
from bench.turns import Protocol, batch_size, turn


def main() -> None:
    """Answer until there are no more commands."""
    how = Protocol(**json.loads(sys.argv[1]))
    _answer({"file": fl.__file__, "version": fl.__version__, "backend": fl.backend()})
    take_turn = None
    for line in sys.stdin:
        command = json.loads(line)
        if command == "turn":
            _answer(take_turn())
        else:
            engine, mode = _engine(**command), command["mode"]
            result = sum(float(abs(array).sum()) for array in results(engine, mode).values())
            run = engine.call(mode)
            take_turn = partial(turn, run, batch_size(run, how), how)
            _answer(result)


def _engine(case: dict, mode: str) -> FastLSTM:
    return FastLSTM(make_problem(Case(**case), with_state=mode != "inference"), 1)


def _answer(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
