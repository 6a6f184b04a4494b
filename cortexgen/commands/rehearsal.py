"""`--dry_run`: what a command would do, found out by reading its inputs, and nothing written."""

from collections.abc import Callable, Collection, Mapping

from cortexgen.errors import UserError, reason
from cortexgen.runner.progress import tracked

Check = Callable[[], bool]  # reads an item's inputs; whether it is done before; a UserError says what is wrong


def rehearse(what: str, unit: str, checks: Mapping[str, Check], problems: Mapping[str, str] | None = None) -> None:
    """Check every item, and say how many would be done, are done before, and can't be used, with the reasons of these.

    Arguments:
        what, unit: would be done to what ("register", "image").
        problems: items that can't be used, by name, that are known already.

    Raises:
        UserError: if some can't be used, as the run itself would in the end.
    """
    wrong, done = dict(problems or {}), []
    for name in tracked(list(checks), "checking", unit=unit, leave=False):
        try:
            if checks[name]():
                done.append(name)
        except Exception as error:
            wrong[name] = reason(error)
    known = {*wrong, *done}
    say_plan(what, unit, [name for name in checks if name not in known], done, wrong)


def say_plan(
    what: str, unit: str, todo: Collection[str], done: Collection[str], wrong: Mapping[str, str] | None = None
) -> None:
    """Print what would be done; arguments and errors as `rehearse`."""
    wrong = wrong or {}
    total = len(todo) + len(done) + len(wrong)
    print(f"{what}, dry run: {total} {unit}(s): {len(todo)} to do, {len(done)} done before, {len(wrong)} unusable")
    for name, why in wrong.items():
        print(f"  {name}: {why}")
    if wrong:
        name, why = next(iter(wrong.items()))
        raise UserError(f"{len(wrong)} of {total} {unit}(s) can't be used; {name}: {why}")
